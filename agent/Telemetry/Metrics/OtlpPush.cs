using OpenTelemetry;
using OpenTelemetry.Exporter;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using Sidecar.Agent.Configuration;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Pushes the meter's instruments to a collector over OTLP/HTTP with protobuf, on a thread of its own. A collector that
/// cannot be reached is tried again at the next interval; nothing waits for it.
/// </summary>
internal sealed class OtlpPush : IDisposable
{
    /// <summary>Time between two pushes.</summary>
    public static readonly TimeSpan Interval = TimeSpan.FromSeconds(15);

    /// <summary>The longest that one push, and the last one at the end, may take.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly MeterProvider _provider;

    /// <summary>Begins to push.</summary>
    /// <param name="endpoint">The collector, with the path of the request.</param>
    /// <param name="interval">Time between two pushes.</param>
    public OtlpPush(Uri endpoint, TimeSpan interval) =>
        _provider = Sdk.CreateMeterProviderBuilder()
            .SetResourceBuilder(ResourceBuilder.CreateEmpty()
                .AddService("conn-sidecar", serviceVersion: ProductVersion.Text, autoGenerateServiceInstanceId: false, serviceInstanceId: Environment.MachineName)
                .AddAttributes([new("host.name", Environment.MachineName)]))
            .AddMeter(SidecarMetrics.MeterName)
            .AddOtlpExporter((exporter, reader) =>
            {
                exporter.Endpoint = endpoint;
                exporter.Protocol = OtlpExportProtocol.HttpProtobuf;
                exporter.TimeoutMilliseconds = (int)Patience.TotalMilliseconds;
                reader.PeriodicExportingMetricReaderOptions.ExportIntervalMilliseconds = (int)interval.TotalMilliseconds;
                reader.PeriodicExportingMetricReaderOptions.ExportTimeoutMilliseconds = (int)Patience.TotalMilliseconds;
            })
            .Build();

    /// <summary>Pushes once more and ends, within about two seconds.</summary>
    public void Dispose()
    {
        _provider.Shutdown((int)Patience.TotalMilliseconds);
        _provider.Dispose();
    }
}
