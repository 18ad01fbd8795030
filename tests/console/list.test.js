import assert from "node:assert/strict";
import test from "node:test";
import { told } from "../../service/console/static/lib/bulk.js";
import { apiQuery, ariaSort, isFiltered, shownColumns, turnedSort } from "../../service/console/static/lib/list.js";
import { parseRoute, toHash, withQuery } from "../../service/console/static/lib/route.js";

test("an address leads to the page that made it", () => {
  const query = new URLSearchParams([
    ["state", "RUNNING"],
    ["state", "QUEUED"],
    ["q", "a&b=c #?"],
  ]);
  const found = parseRoute(toHash(["experiments", "a/b"], query));
  assert.deepEqual(found.path, ["experiments", "a/b"]);
  assert.equal(found.query.toString(), query.toString());
});

test("a broken address is a page that is not there", () => {
  assert.deepEqual(parseRoute("#/%zz").path, ["%zz"]);
  assert.deepEqual(parseRoute("").path, ["experiments"]);
});

test("what is emptied leaves the address", () => {
  const query = withQuery(new URLSearchParams("q=x&state=RUNNING&cursor=c"), {
    q: "",
    cursor: null,
    state: ["QUEUED"],
  });
  assert.equal(query.toString(), "state=QUEUED");
});

test("the server is asked for nothing that it does not know", () => {
  const asked = apiQuery(new URLSearchParams("q=x&columns=name&nonsense=1&sort=name"));
  assert.deepEqual([...asked.keys()].sort(), ["limit", "q", "sort", "spec"]);
  assert.equal(isFiltered(new URLSearchParams("columns=name&sort=name")), false);
});

test("the name is always shown", () => {
  assert.deepEqual(
    shownColumns(new URLSearchParams("columns=owner")).map(({ name }) => name),
    ["name", "owner"],
  );
});

test("a column is sorted falling, then rising", () => {
  assert.equal(turnedSort("name", null), "-name");
  assert.equal(turnedSort("name", "-name"), "name");
  assert.equal(ariaSort("created_at", null), "descending");
  assert.equal(ariaSort("name", "name"), "ascending");
  assert.equal(ariaSort(undefined, null), undefined);
});

test("what was refused is told with its reason", () => {
  assert.equal(told(1, "cancelled", []), "1 of 1 experiment cancelled.");
  assert.equal(told(2, "deleted", ["x: it runs"]), "1 of 2 experiments deleted. Refused: x: it runs");
});
