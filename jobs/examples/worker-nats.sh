#!/usr/bin/env bash
# A worker in bash with the nats command and jq. It does the jobs of the type shout.
name=bash-$$ pause=1 # NATS_URL says where the server is
out=$(mktemp) && trap 'rm -f "$out"' EXIT
set -m # the work has a process group of its own, which can be ended as a whole

ask() { nats request --raw --no-templates --timeout "$1s" "jobstream.worker.$2" "$3" 2>/dev/null; }

work() { # gets the job, writes the result
  sleep "$(jq -r '.payload.seconds // 0' <<<"$1")"
  jq -ce --arg worker "$name" '{text: .payload.text | ascii_upcase, worker: $worker}' <<<"$1"
}

while :; do
  asked=$SECONDS
  if ! answer=$(ask 40 next '{"types":["shout"],"worker":"'"$name"'"}') || ! jq -e .leases <<<"$answer" >/dev/null; then
    sleep "$((RANDOM % pause)).$RANDOM" && ((pause = pause < 8 ? pause * 2 : 8))
    continue
  fi
  pause=1
  lease=$(jq -re '.leases[0].lease // empty' <<<"$answer") || continue
  span=$(jq '.leases[0].lease_seconds | floor' <<<"$answer") until=$((asked + span))
  work "$(jq -c '.leases[0].job' <<<"$answer")" >"$out" 2>&1 & job=$!
  while sleep $((span / 3)) & nap=$!; wait -n -p ended $job $nap; status=$?; [[ $ended == "$nap" ]]; do
    sent=$SECONDS
    if beat=$(ask $((span / 3)) beat '{"worker":"'"$name"'","leases":["'"$lease"'"]}') && jq -e .lost <<<"$beat" >/dev/null; then
      until=$((sent + span))
      jq -e '.lost + (.cancel | keys) == []' <<<"$beat" >/dev/null || until=0
    fi
    ((SECONDS + span / 3 < until)) || { kill -KILL -- -$job; until=0; } # the job is not ours any more
  done
  kill $nap 2>/dev/null
  ((until)) || continue
  if ((status)); then end=fail body=$(jq -n --arg l "$lease" --rawfile e "$out" '{lease: $l, error: $e}')
  else end=done body='{"lease":"'$lease'","result":'$(<"$out")'}'; fi
  for try in {1..30}; do # again does no harm
    answer=$(ask 5 "$end" "$body") && jq -e '.status != 503' <<<"$answer" >/dev/null && break
    sleep 2
  done
done
