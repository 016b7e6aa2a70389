using System.Diagnostics;
using System.Diagnostics.Metrics;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Telemetry;

/// <summary>What the agent itself uses, by the names that Prometheus's client libraries give it.</summary>
internal static class ProcessGauges
{
    /// <summary>One reading serves all gauges of a scrape.</summary>
    private static readonly TimeSpan KeptFor = TimeSpan.FromMilliseconds(100);

    /// <summary>Makes the instruments.</summary>
    /// <param name="meter">Where.</param>
    /// <param name="read">Reads what they show; null where that cannot be had: then nothing is shown.</param>
    public static void Create(Meter meter, Func<OwnProcess?> read)
    {
        OwnProcess? last = null;
        var lastAt = 0L;
        Measurement<T>[] Of<T>(Func<OwnProcess, T?> value)
            where T : struct
        {
            if (last is null || Stopwatch.GetElapsedTime(lastAt) > KeptFor)
            {
                (last, lastAt) = (read(), Stopwatch.GetTimestamp());
            }

            return last is { } own && value(own) is { } number ? [new(number)] : [];
        }

        meter.CreateObservableCounter("process_cpu_seconds", () => Of<double>(own => own.Cpu.TotalSeconds), "s", "User and system CPU time that the agent has used.");
        meter.CreateObservableGauge("process_resident_memory_bytes", () => Of<long>(own => own.ResidentBytes), "By", "Resident memory of the agent.");
        meter.CreateObservableGauge("process_virtual_memory_bytes", () => Of<long>(own => own.VirtualBytes), "By", "Address space of the agent.");
        meter.CreateObservableGauge("process_start_time_seconds", () => Of(own => (own.Started - DateTimeOffset.UnixEpoch)?.TotalSeconds), "s", "Unix time at which the agent was started.");
        meter.CreateObservableGauge("process_open_fds", () => Of<long>(own => own.Descriptors), "{descriptor}", "Descriptors that the agent has open.");
        meter.CreateObservableGauge("process_max_fds", () => Of(own => own.MostDescriptors), "{descriptor}", "Descriptors that the agent may have open; absent where there is no limit.");
    }
}
