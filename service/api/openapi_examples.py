"""Examples of what goes over the wire, for the description of the API. A test holds each against its schema."""

from typing import Any

ID = "4x8k2m9qtr0v"
SPEC: dict[str, Any] = {
    "name": "digits-cbam",
    "project": "digits",
    "tags": {"paper": "cbam"},
    "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam", "reduction": 8}},
    "data": {"dataset": "digits", "image_size": 16},
    "train": {"epochs": 8, "global_batch_size": 64, "optimizer": {"type": "sgd", "lr": 0.1}},
}
_FROM_TEMPLATE = {"template": "digits-cbam", "overrides": {"train.epochs": 3, "model": {"attention": {"type": "se"}}}}
_SUBMISSIONS = {
    "spec": {"summary": "a spec; what is left out has its default", "value": SPEC},
    "template": {"summary": "a template, with changes", "value": _FROM_TEMPLATE},
}
BODIES: dict[str, dict[str, Any]] = {
    "post_experiments": _SUBMISSIONS,
    "post_experiments_preview": _SUBMISSIONS,
    "post_experiments_clone": {
        "changes": {"summary": "the same with another seed", "value": {"name": "digits-cbam-1", "train.seed": 1}},
        "nothing": {"summary": "exactly the same", "value": {}},
    },
    "patch_experiments_one": {
        "priority": {"summary": "to the front", "value": {"priority": 10}},
        "words": {"summary": "tags and description", "value": {"tags": {"paper": "cbam"}, "description": "table 4"}},
    },
    "post_bulk_cancel": {
        "filter": {"value": {"filter": {"project": "digits", "state": ["QUEUED", "RUNNING"]}}},
        "ids": {"value": {"ids": [ID]}},
    },
    "post_bulk_delete": {
        "look": {"summary": "only say which", "value": {"filter": {"state": ["FAILED"]}, "dry_run": True}},
    },
    "post_bulk_prune": {
        "look": {"summary": "only say which", "value": {"filter": {"ended_before": "2026-10-01"}}},
        "checkpoints": {
            "summary": "remove checkpoints",
            "value": {"filter": {"ended_before": "2026-10-01"}, "dry_run": False},
        },
        "all": {"summary": "remove all files", "value": {"ids": [ID], "what": "all", "dry_run": False}},
    },
}
PARAMETERS: dict[str, Any] = {"experiment_id": ID, "path": "export/model.safetensors"}
PROBLEMS: dict[int, dict[str, Any]] = {
    400: {"detail": "the body is not valid JSON: Expecting value at character 9"},
    401: {"detail": "this needs a token"},
    403: {"detail": "this belongs to ada; only ada or an admin may change it, and you are bob"},
    404: {"detail": f"there is no experiment '{ID}'"},
    408: {"detail": "the body did not arrive within 30 s"},
    409: {
        "detail": "cannot pause an experiment that is SUCCEEDED; it allows delete",
        "legal": ["delete"],
    },
    410: {
        "detail": "What was submitted with this Idempotency-Key has been deleted; use another key to submit it anew."
    },
    412: {"detail": "The experiment has changed since this version of it was read; read it again."},
    413: {"detail": "the body is over 1048576 bytes"},
    415: {"detail": "send the body as application/json"},
    416: {"detail": "the file has 1048576 bytes, counted from 0"},
    422: {
        "detail": "1 field cannot be used",
        "errors": [{"pointer": "/model/attention/kernel_size", "detail": "kernel_size must be odd; got 4"}],
    },
    429: {"detail": "too many requests; come back in 2 s"},
    503: {"detail": "the database does not answer"},
}
_TIME = "2026-11-22T20:00:00Z"
_CURVE = {"name": "val/top1", "steps": [22, 44], "values": [0.83, 0.91], "times": [1795377600000, 1795377609000]}
_FILE = {
    "path": "export/model.safetensors",
    "kind": "weights",
    "size": 1094224,
    "sha256": "0b6e3f8a" * 8,
    "modified": _TIME,
    "etag": '"10b250-187f5b0c6a2f8e00"',
}
SCHEMAS: dict[str, Any] = {
    "ExperimentView": {
        "id": ID,
        "name": "digits-cbam",
        "project": "digits",
        "owner": "local",
        "description": "",
        "tags": {"paper": "cbam"},
        "priority": 0,
        "version": 3,
        "cloned_from": None,
        "state": "RUNNING",
        "desired": "run",
        "reason": None,
        "message": "",
        "actions": ["cancel", "pause"],
        "attempt": 1,
        "progress": {
            "phase": "training",
            "step": 44,
            "total_steps": 176,
            "epoch": 2,
            "epochs": 8,
            "images_per_second": 512.5,
            "eta_seconds": 18.0,
        },
        "metrics": {"val/top1": 0.91, "train/loss": 0.35},
        "summary": {},
        "created_at": _TIME,
        "started_at": _TIME,
        "ended_at": None,
        "mlflow_run_id": None,
        "links": {
            "self": f"/v1/experiments/{ID}",
            "logs": f"/v1/experiments/{ID}/logs",
            "events": f"/v1/experiments/{ID}/events",
            "metrics": f"/v1/experiments/{ID}/metrics",
            "mlflow": None,
        },
        "spec": SPEC,
    },
    "CurveList": {"items": [_CURVE]},
    "FileList": {"items": [_FILE], "unreadable": [], "next_cursor": None},
    "BulkAnswer": {"results": [{"id": ID, "ok": True, "state": "QUEUED", "problem": None}], "more": False},
    "ClusterInfo": {
        "leader": "dispatcher lab:4711",
        "reachable": True,
        "message": "",
        "seen_at": _TIME,
        "cpus": 32,
        "gpus": 4,
        "free_cpus": 16,
        "free_gpus": 2,
        "nodes": [{"id": "a1b2", "cpus": 32, "gpus": 4, "free_cpus": 16, "free_gpus": 2}],
        "experiments": {"QUEUED": 3, "RUNNING": 2},
    },
}
