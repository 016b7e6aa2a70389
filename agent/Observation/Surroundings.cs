using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;

namespace Sidecar.Agent.Observation;

/// <summary>All that is looked at around the workers, each in the background: queues and processes, HAProxy, checks.</summary>
internal sealed class Surroundings : IDisposable
{
    private readonly StackWatch _stack;
    private readonly List<(HaproxySection Section, BackgroundScan<HaproxyStatus> Scan)> _haproxies;
    private readonly List<(CheckSection Section, BackgroundScan<CheckStatus> Scan)> _checks;

    public Surroundings(SidecarConfiguration configuration, Clock clock)
    {
        _stack = new StackWatch(configuration, clock);
        _haproxies = [.. configuration.Haproxies.Select(section => (section, new BackgroundScan<HaproxyStatus>(HaproxyScan.Interval, new HaproxyScan(section).ScanAsync)))];
        _checks = [.. configuration.Checks.Select(section => (section, new BackgroundScan<CheckStatus>(
            section.Interval, new CheckScan(section, configuration.Upstreams.FirstOrDefault(upstream => upstream.Name == section.Upstream)?.DsnFile).ScanAsync)))];
    }

    public StackView Stack => _stack.View;

    /// <summary>In the order of the configuration; those that were looked at.</summary>
    public IReadOnlyList<HaproxyStatus> Haproxies => [.. _haproxies.Select(haproxy => haproxy.Scan.View).OfType<HaproxyStatus>()];

    /// <summary>In the order of the configuration; one that has not been made yet says so.</summary>
    public IReadOnlyList<CheckStatus> Checks => [.. _checks.Select(check => check.Scan.View
        ?? new CheckStatus { Name = check.Section.Name, Expected = null, Actual = null, Problem = "not made yet" })];

    /// <summary>What cannot be seen, one line each.</summary>
    public IEnumerable<string> Problems => Stack.Problems.Concat(Haproxies.Where(haproxy => haproxy is { Version: not null, Problem: not null }).Select(haproxy => $"haproxy {haproxy.Name} is not seen whole: {haproxy.Problem}"));

    /// <summary>Groups, HAProxies and checks that were looked for.</summary>
    public IEnumerable<SourceStatus> Sources =>
    [
        .. Stack.Sources,
        .. Haproxies.Select(haproxy => new SourceStatus(SourceStatus.Haproxy, haproxy.Name, haproxy.Version is null ? $"haproxy {haproxy.Name} is not seen: {haproxy.Problem}" : null)),
        .. _checks.Select(check => check.Scan.View).OfType<CheckStatus>()
            .Select(check => new SourceStatus(SourceStatus.Check, check.Name, check.IsMatch is null ? $"check {check.Name} is not known: {check.Problem}" : null)),
    ];

    /// <summary>Starts scanning.</summary>
    public void Start()
    {
        _stack.Start();
        _haproxies.ForEach(haproxy => haproxy.Scan.Start());
        _checks.ForEach(check => check.Scan.Start());
    }

    /// <summary>One scan of everything, for the command that runs without an agent.</summary>
    public void ScanOnce()
    {
        if (_stack.IsNeeded)
        {
            _stack.Scan();
        }

        Task.WaitAll([.. _haproxies.Select(haproxy => haproxy.Scan.ScanAsync()), .. _checks.Select(check => check.Scan.ScanAsync())]);
    }

    public void Dispose()
    {
        _stack.Dispose();
        _haproxies.ForEach(haproxy => haproxy.Scan.Dispose());
        _checks.ForEach(check => check.Scan.Dispose());
    }
}
