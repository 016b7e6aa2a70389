using Sidecar.Agent.Configuration;
using Sidecar.Agent.Tracking;

namespace Sidecar.Agent.Stack;

/// <summary>All that is looked at around the workers, each in the background: queues and processes, HAProxy, checks.</summary>
internal sealed class Surroundings : IDisposable
{
    private readonly StackWatch _stack;
    private readonly List<(HaproxySection Section, BackgroundLook<HaproxyStatus> Look)> _haproxies;
    private readonly List<(CheckSection Section, BackgroundLook<CheckStatus> Look)> _checks;

    public Surroundings(SidecarConfiguration configuration, Func<TimeSpan> clock)
    {
        _stack = new StackWatch(configuration, clock);
        _haproxies = [.. configuration.Haproxies.Select(section => (section, new BackgroundLook<HaproxyStatus>(HaproxyLook.Interval, new HaproxyLook(section).LookAsync)))];
        _checks = [.. configuration.Checks.Select(section => (section, new BackgroundLook<CheckStatus>(
            section.Interval, new CheckLook(section, configuration.Upstreams.FirstOrDefault(upstream => upstream.Name == section.Upstream)?.DsnFile).LookAsync)))];
    }

    public StackView Stack => _stack.View;

    /// <summary>In the order of the configuration; those that were looked at.</summary>
    public IReadOnlyList<HaproxyStatus> Haproxies => [.. _haproxies.Select(haproxy => haproxy.Look.View).OfType<HaproxyStatus>()];

    /// <summary>In the order of the configuration; one that has not been made yet says so.</summary>
    public IReadOnlyList<CheckStatus> Checks => [.. _checks.Select(check => check.Look.View
        ?? new CheckStatus { Name = check.Section.Name, Expected = null, Actual = null, Problem = "not made yet" })];

    /// <summary>What cannot be seen, one line each.</summary>
    public IEnumerable<string> Problems => Stack.Problems.Concat(Haproxies.Where(haproxy => haproxy.Problem is not null).Select(haproxy => $"haproxy {haproxy.Name} is not seen: {haproxy.Problem}"));

    /// <summary>Begins to look.</summary>
    public void Start()
    {
        _stack.Start();
        _haproxies.ForEach(haproxy => haproxy.Look.Start());
        _checks.ForEach(check => check.Look.Start());
    }

    /// <summary>One look at everything, for the command that runs without an agent.</summary>
    public void LookOnce()
    {
        if (_stack.IsNeeded)
        {
            _stack.Look();
        }

        Task.WaitAll([.. _haproxies.Select(haproxy => haproxy.Look.LookAsync()), .. _checks.Select(check => check.Look.LookAsync())]);
    }

    public void Dispose()
    {
        _stack.Dispose();
        _haproxies.ForEach(haproxy => haproxy.Look.Dispose());
        _checks.ForEach(check => check.Look.Dispose());
    }
}
