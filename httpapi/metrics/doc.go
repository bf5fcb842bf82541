// Package metrics shows how the server does to Prometheus: GET /metrics. It alone knows
// Prometheus. Beside the code stand a dashboard for Grafana (grafana.json), rules for
// alerts (alerts.yml) and their tests (alerts_test.yml).
//
// Where to start: table.go lists all metrics of a [Snapshot], which is taken when somebody
// asks. So they cost nothing on the way of a job. [Requests] counts what the REST door
// answers.
package metrics
