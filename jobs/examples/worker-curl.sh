#!/usr/bin/env bash
# A worker in bash with curl and jq. It does the jobs of the type shout.
url=${JOBSTREAM_URL:-http://127.0.0.1:8080}/leases name=bash-$$ pause=1
out=$(mktemp) && trap 'rm -f "$out"' EXIT
set -m # the work has a process group of its own, which can be ended as a whole

work() { # gets the job, writes the result
  sleep "$(jq -r '.payload.seconds // 0' <<<"$1")"
  jq -ce --arg worker "$name" '{text: .payload.text | ascii_upcase, worker: $worker}' <<<"$1"
}

while :; do
  asked=$SECONDS
  answer=$(curl -sf -m 40 "$url" -d '{"types":["shout"],"worker":"'"$name"'"}') || {
    sleep "$((RANDOM % pause)).$RANDOM" && ((pause = pause < 8 ? pause * 2 : 8))
    continue
  }
  pause=1
  lease=$(jq -re '.leases[0].lease // empty' <<<"$answer") || continue
  span=$(jq '.leases[0].lease_seconds | floor' <<<"$answer") until=$((asked + span))
  work "$(jq -c '.leases[0].job' <<<"$answer")" >"$out" 2>&1 & job=$!
  while sleep $((span / 3)) & nap=$!; wait -n -p ended $job $nap; status=$?; [[ $ended == "$nap" ]]; do
    sent=$SECONDS
    if beat=$(curl -sf -m $((span / 3)) "$url/beat" -d '{"worker":"'"$name"'","leases":["'"$lease"'"]}'); then
      until=$((sent + span))
      jq -e '.lost + (.cancel | keys) == []' <<<"$beat" >/dev/null || until=0
    fi
    ((SECONDS + span / 3 < until)) || { kill -KILL -- -$job; until=0; } # the job is not ours any more
  done
  kill $nap 2>/dev/null
  ((until)) || continue
  if ((status)); then end=fail body=$(jq -n --rawfile e "$out" '{error: $e}'); else end=done body='{"result":'$(<"$out")'}'; fi
  curl -s -m 60 --retry 30 --retry-connrefused "$url/$lease/$end" -d @- <<<"$body" >/dev/null # again does no harm
done
