package traces

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// The standard variables that are read here; the SDK reads more.
const (
	envDisabled  = "OTEL_SDK_DISABLED"
	envExporter  = "OTEL_TRACES_EXPORTER"
	envSampler   = "OTEL_TRACES_SAMPLER"
	envArgument  = "OTEL_TRACES_SAMPLER_ARG"
	envEndpoint  = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envEndpoint1 = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envProtocol  = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envProtocol1 = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envQueue     = "OTEL_BSP_MAX_QUEUE_SIZE"
	envBatch     = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
)

// A commit ends many jobs at once, so spans come in crowds. These are the bounds of what
// waits for its export and of one request, in spans, unless the environment says others.
const (
	queueSize = 16 << 10
	batchSize = 2 << 10
)

// FromEnv makes the tracer for which the environment asks; nil if it asks for none. It does
// so by the address of a collector, or by OTEL_TRACES_EXPORTER=otlp. What it cannot use it
// logs and leaves aside, as the standard demands. version is that of the program.
func FromEnv(ctx context.Context, version string, log *slog.Logger) (*Tracer, error) {
	if !wanted(log) {
		return nil, nil //nolint:nilnil // no tracer is a good answer
	}
	for _, name := range []string{envProtocol1, envProtocol} {
		if p := os.Getenv(name); p != "" && p != "http/protobuf" {
			log.Warn("spans are sent as http/protobuf; name the port for that, 4318 as a rule", name, p)
			break
		}
	}
	sampler, err := samplerOf(os.Getenv(envSampler), os.Getenv(envArgument))
	if err != nil {
		log.Warn("the sampler of spans is not understood", "error", err)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("spans cannot be exported (OTEL_…): %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "jobstream"), attribute.String("service.version", version)),
		resource.WithFromEnv())
	if err != nil {
		log.Warn("the attributes of spans are incomplete (OTEL_RESOURCE_ATTRIBUTES)", "error", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans were lost", "error", err) }))
	var bounds []sdk.BatchSpanProcessorOption
	if os.Getenv(envQueue) == "" {
		bounds = append(bounds, sdk.WithMaxQueueSize(queueSize))
	}
	if os.Getenv(envBatch) == "" {
		bounds = append(bounds, sdk.WithMaxExportBatchSize(batchSize))
	}
	return newTracer(sdk.NewBatchSpanProcessor(exporter, bounds...), about, sampler, log), nil
}

// wanted says whether the environment asks for spans.
func wanted(log *slog.Logger) bool {
	if off, _ := strconv.ParseBool(os.Getenv(envDisabled)); off {
		return false
	}
	switch e := os.Getenv(envExporter); e {
	case "otlp":
		return true
	case "":
		return os.Getenv(envEndpoint) != "" || os.Getenv(envEndpoint1) != ""
	case "none":
	default:
		log.Warn("no spans are exported: otlp is the only exporter", envExporter, e)
	}
	return false
}

// samplerOf is the sampler of OTEL_TRACES_SAMPLER. With the error comes the one that is
// used instead.
func samplerOf(name, argument string) (sdk.Sampler, error) {
	ratio, err := 1.0, error(nil)
	if argument != "" && strings.HasSuffix(name, "traceidratio") {
		if ratio, err = strconv.ParseFloat(argument, 64); err != nil || ratio < 0 || ratio > 1 {
			ratio, err = 1, fmt.Errorf("%s=%q is no number from 0 to 1; all are sampled", envArgument, argument)
		}
	}
	switch name {
	case "", "parentbased_always_on":
		return sdk.ParentBased(sdk.AlwaysSample()), nil
	case "parentbased_always_off":
		return sdk.ParentBased(sdk.NeverSample()), nil
	case "parentbased_traceidratio":
		return sdk.ParentBased(sdk.TraceIDRatioBased(ratio)), err
	case "always_on":
		return sdk.AlwaysSample(), nil
	case "always_off":
		return sdk.NeverSample(), nil
	case "traceidratio":
		return sdk.TraceIDRatioBased(ratio), err
	}
	return sdk.ParentBased(sdk.AlwaysSample()), fmt.Errorf("%s=%q is not known; it is parentbased_always_on", envSampler, name)
}
