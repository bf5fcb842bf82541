#!/usr/bin/env python3
"""A worker in Python, with its standard library only. It does the jobs of the type shout."""
import http.client, json, os, random, threading, time, urllib.error, urllib.request

URL = os.environ.get("JOBSTREAM_URL", "http://127.0.0.1:8080") + "/leases"
NAME = f"python-{os.getpid()}"
DOWN = (OSError, http.client.HTTPException, ValueError)  # the server is away, or says that it is busy


def work(job, stop):
    """Does one job. It must return when the event stop is set."""
    stop.wait(job["payload"].get("seconds", 0))
    return {"text": job["payload"]["text"].upper(), "worker": NAME}


def post(path, body, timeout=40):
    try:
        with urllib.request.urlopen(URL + path, json.dumps(body).encode(), timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as e:
        if e.code == 429 or e.code >= 500:
            raise
        return json.load(e)


def beat(lease, span, until, stop, ended):
    while not ended.wait(span / 3):
        sent = time.monotonic()
        try:
            b = post("/beat", {"worker": NAME, "leases": [lease]}, span / 3)
            until = sent + span if not b["lost"] and not b["cancel"] else 0
        except DOWN:
            pass
        if time.monotonic() + span / 3 > until:  # by our own clock
            return stop.set()


def run(lease, span, job, asked):
    stop, ended = threading.Event(), threading.Event()
    threading.Thread(target=beat, args=(lease, span, asked + span, stop, ended), daemon=True).start()
    try:
        end, body = "done", {"result": work(job, stop)}
    except Exception as e:
        end, body = "fail", {"error": repr(e)}
    pause = 0.2
    while not stop.is_set():  # a report that comes again does no harm; a lost lease is answered with 409
        try:
            post(f"/{lease}/{end}", body)
            break
        except DOWN:
            pause = min(2 * pause, 10)
            time.sleep(random.uniform(0, pause))
    ended.set()


pause = 0.2
while True:
    asked = time.monotonic()
    try:
        leases, pause = post("", {"types": ["shout"], "worker": NAME})["leases"], 0.2
    except (*DOWN, KeyError):
        time.sleep(random.uniform(0, pause))
        leases, pause = [], min(2 * pause, 10)
    for l in leases:
        run(l["lease"], l["lease_seconds"], l["job"], asked)
