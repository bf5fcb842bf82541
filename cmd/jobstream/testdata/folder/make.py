#!/usr/bin/env python3
"""make.py BINARY ARCHIVE: makes the data folder of an old version, for TestOldFolders.

It serves with that binary, makes jobs in every state that the version knows, and kills
it. The archive has data/, config.yaml, jobs.jsonl (its answers to GET /jobs/{id}) and
facts.json (what else must stay). What a version does not know is left out."""
import json, os, shutil, signal, socket, subprocess, sys, tarfile, tempfile, time, urllib.error, urllib.request

binary, archive = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
tarpit = socket.create_server(("127.0.0.1", 0))  # a mail server that never says a word
with socket.create_server(("127.0.0.1", 0)) as free:
    rest = free.getsockname()[1]
J = f"http://127.0.0.1:{rest}"
BASE = f"""retention: {{finished: 0}}
worker: {{max_workers: 8}}
email: {{transport: smtp, smtp: {{host: 127.0.0.1, port: {tarpit.getsockname()[1]}, tls: none}}}}
jobs:
  email: {{retry_count: 2, timeout: 1, backoff: {{kind: constant, base: 7d, max: 0}}}}
  fails: {{run: email, retry_count: 0, timeout: 1}}
  slow: {{run: email, retry_count: 3, timeout: 3600, max_workers: 1, backoff: {{kind: constant, base: 7d, max: 0}}}}
  export: {{}}
  report: {{}}
"""
LATER = """  fed: {run: exec, command: [sleep, "3600"], timeout: 7200, inputs: {file: {}}}
  far: {run: remote, lease: 1h, timeout: 2h}
callbacks: {allow: [127.0.0.1]}
"""


def ask(method, path, body=None, headers=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(J + path, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        print(f"{method} {path}: {e.code} {e.read()[:200]}")
        return e.code, b""


def serve(folder, config):
    open(os.path.join(folder, "config.yaml"), "w").write(config)
    env = dict(os.environ, JOBSTREAM_SERVER_PORT=str(rest), JOBSTREAM_BROKER_PORT="0", JOBSTREAM_DATA_DIR=os.path.join(folder, "data"))
    env.update(JOBSTREAM_DATA_MIN_FREE="0") if b"min_free" in open(binary, "rb").read() else None
    server = subprocess.Popen([binary, "serve", "--config", os.path.join(folder, "config.yaml")], env=env, stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if "msg=ready" in line:
            return server
        print(line, end="")
    return None


folder = tempfile.mkdtemp()
server = serve(folder, BASE + LATER) or serve(folder, BASE)
mail = {"to": "a@example.com", "subject": "Hi", "body": "x"}
facts, ids = {}, []


def submit(job, headers=None):
    code, body = ask("POST", "/jobs", job, headers)
    if code == 202:
        ids.append(json.loads(body)["id"])
        return ids[-1]


def status(job, *wanted):
    while job:
        now = json.loads(ask("GET", "/jobs/" + job)[1])
        if now["status"] in wanted:
            return now
        time.sleep(0.05)


for kind in ("report", "export"):
    done = submit({"type": kind, "payload": {"format": "csv"} if kind == "export" else {}, "tags": ["kept"]})
    status(done, "completed")
    facts.setdefault("results", {})[done] = len(ask("GET", f"/jobs/{done}/result")[1])
status(submit({"type": "fails", "payload": mail, "priority": 1}), "failed")
trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
status(submit({"type": "email", "payload": dict(mail, body="y" * 3000)}, trace), "retrying")
submit({"type": "slow", "payload": mail, "concurrency_key": "k"}) or submit({"type": "slow", "payload": mail})
status(ids[-1], "processing")
submit({"type": "slow", "payload": mail, "priority": 5, "tags": ["a", "b"]})
submit({"type": "slow", "payload": mail, "concurrency_key": "k"})
submit({"type": "email", "payload": mail, "delay": "3000h", "ttl": "4000h", "deadline": "9000h", "retry_count": 7, "timeout": 5})
facts["unique"] = submit({"type": "email", "payload": mail, "delay": "3000h", "unique_key": "u1"})
facts["idempotent"] = submit({"type": "slow", "payload": mail}, {"Idempotency-Key": "k1"})
cancelled = submit({"type": "slow", "payload": mail})
ask("POST", f"/jobs/{cancelled}/cancel")
ids += [j["id"] for j in json.loads(ask("POST", "/jobs/batch", {"jobs": [{"type": "slow", "payload": mail}] * 2})[1] or b'{"jobs":[]}')["jobs"]]
ask("POST", "/schedules", {"name": "mine", "every": "300d", "type": "report"})
ask("POST", "/types/export/pause")
code, body = ask("POST", "/artifacts", b"a file")
if code == 201:
    status(submit({"type": "fed", "inputs": {"file": json.loads(body)["id"]}}), "processing")
    facts["upload"] = json.loads(ask("POST", "/artifacts", b"another file")[1])["id"]
    submit({"type": "far", "payload": {"n": 1}})
    lease = json.loads(ask("POST", "/leases", {"types": ["far"], "worker": "w1", "wait": "10s"})[1] or b"{}")
    status(submit({"type": "report", "callback_url": "http://127.0.0.1:9/"}), "completed")
facts["schedules"] = [s["name"] for s in json.loads(ask("GET", "/schedules")[1] or b'{"schedules":[]}')["schedules"]]
with open(os.path.join(folder, "jobs.jsonl"), "w") as out:
    for job in ids:
        out.write(json.dumps(json.loads(ask("GET", "/jobs/" + job)[1])) + "\n")
server.send_signal(signal.SIGKILL)
server.wait()
json.dump(facts, open(os.path.join(folder, "facts.json"), "w"))
with tarfile.open(archive, "w:gz") as tar:
    for name in ("config.yaml", "jobs.jsonl", "facts.json", "data"):
        tar.add(os.path.join(folder, name), name)
shutil.rmtree(folder)
print(archive, os.path.getsize(archive), [json.dumps(f) for f in facts.items()])
