using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Doctor;

/// <summary>What PostgreSQL servers let the agent do, by asking them.</summary>
internal static class ServerChecks
{
    /// <summary>Asks the server of one upstream; tells its settings too, where it did answer.</summary>
    public static IReadOnlyList<Finding> For(UpstreamSection upstream, out ServerSettings? settings)
    {
        settings = null;
        if (upstream.DsnFile is not { } file || upstream.Protocol != UpstreamProtocol.PostgreSql)
        {
            return [];
        }

        var name = $"release ({upstream.Name})";
        var findings = new List<Finding>();
        var probe = new SessionProbe(() => DsnFile.Read(file));
        try
        {
            DsnFile.Read(file);
            findings.Add(new Finding(name, FindingState.Works, upstream.Recycle, $"{file} is for its owner alone, and can be read"));
            var scan = probe.ScanAsync([], CancellationToken.None).GetAwaiter().GetResult();
            settings = probe.ReadSettingsAsync(CancellationToken.None).GetAwaiter().GetResult();
            findings.Add(new Finding(name, FindingState.Works, upstream.Recycle, $"the server answers: PostgreSQL {scan.Version}"));
            findings.Add(scan.MaySeeAll
                ? new Finding(name, FindingState.Works, upstream.Recycle, "pg_monitor: the sessions of others can be seen")
                : new Finding(name, FindingState.DoesNot, upstream.Recycle, "the sessions of others cannot be seen: GRANT pg_monitor TO the role"));
            findings.Add(scan.MaySignal
                ? new Finding(name, FindingState.Works, upstream.Recycle, "pg_signal_backend: orphaned back-ends can be ended")
                : new Finding(name, FindingState.DoesNot, upstream.Recycle, "orphaned back-ends cannot be ended: GRANT pg_signal_backend TO the role"));
            findings.Add(Provable(upstream, scan) is { } why
                ? new Finding(name, FindingState.DoesNot, upstream.Recycle, $"{why}: no back-end can be proven to be a connection's, and none will be ended")
                : new Finding(name, FindingState.Works, upstream.Recycle, "the server sees this host's own addresses: back-ends can be matched with connections"));
        }
        catch (Exception e) when (e is ServerProbeException or DsnFileException)
        {
            findings.Add(new Finding(name, FindingState.DoesNot, upstream.Recycle, e.Message));
        }
        finally
        {
            probe.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }

        return findings;
    }

    /// <summary>What stands in the way of a proof; null: nothing.</summary>
    private static string? Provable(UpstreamSection upstream, ServerScan scan)
    {
        if (scan.IsInRecovery)
        {
            return "the server is in recovery";
        }

        if (upstream.Direction == UpstreamDirection.Inbound)
        {
            return null; // by the owner of the socket, on this host
        }

        if (scan is not { Server: { } server, Self: { } self })
        {
            return "the DSN does not lead over TCP";
        }

        var declared = new Upstream(upstream);
        if (declared.HasHostNames)
        {
            var names = new NameResolver([declared]);
            names.Resolve(TimeSpan.Zero, CancellationToken.None);
            names.Wait(TimeSpan.FromSeconds(5));
            names.Resolve(TimeSpan.Zero, CancellationToken.None);
        }

        return !declared.Matches(self, server) ? $"the DSN leads to {server}, which is none of the upstream's endpoints"
            : !SessionWatch.IsOwnEndSeen(scan) ? $"the server sees this host as {self.ToIPAddress()} (source NAT)"
            : null;
    }
}
