import assert from "node:assert/strict";
import test from "node:test";
import { firstLine, plain, plainLine } from "../../service/console/static/lib/text.js";

test("escapes of terminals are taken out whole", () => {
  assert.equal(plain("\u001b[31mred\u001b[0m"), "red");
  assert.equal(plain("\u001b]0;a title\u0007text"), "text");
  assert.equal(plain("\u001b]8;;http://evil.example\u001b\\link\u001b]8;;\u001b\\"), "link");
  assert.equal(plain("\u009b2Jcleared"), "cleared");
  assert.equal(plain("\u001bcreset"), "reset");
});

test("an escape that never ends takes nothing of the next line", () => {
  assert.equal(plain("\u001b]0;title\nnext").includes("next"), true);
});

test("nothing turns the direction of text", () => {
  assert.equal(plain("a\u202eb\u2066c"), "abc");
});

test("of an overwritten line the last form stays", () => {
  assert.equal(plain("1 %\r50 %\r100 %\ndone"), "100 %\ndone");
  assert.equal(plain("windows\r\nlines\r\n"), "windows\nlines\n");
});

test("markup stays text", () => {
  assert.equal(plain("<img src=x onerror=alert(1)>"), "<img src=x onerror=alert(1)>");
});

test("one line is one line", () => {
  assert.equal(plainLine("a\n\tb"), "a b");
  assert.equal(firstLine("a\nb"), "a");
});
