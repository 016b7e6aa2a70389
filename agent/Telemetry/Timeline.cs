using System.Globalization;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// What happened around the workers, in the order in which it was seen: workers that are all busy, queues that fill, HAProxy
/// that takes servers out. An incident shows what of it followed. Used by the loop alone.
/// </summary>
internal sealed class Timeline
{
    private static readonly TimeSpan Kept = TimeSpan.FromMinutes(10);
    private const int Most = 200;

    /// <summary>A queue that was not empty at this many scans in a row has nobody to empty it: a scan may meet a connection that is being accepted.</summary>
    private const int ScansUntilBusy = 2;

    private readonly List<ChainLink> _links = [];
    private readonly Dictionary<(string, string, string), (int NotEmpty, bool Filling, long Drops)> _queues = [];
    private readonly Dictionary<(string, string), BackendStatus> _backends = [];
    private IReadOnlyList<ListenerStatus>? _lastQueues;

    /// <summary>Grows with every event.</summary>
    public int Version { get; private set; }

    /// <summary>What was seen from that time on, oldest first.</summary>
    public IReadOnlyList<ChainLink> Since(DateTimeOffset time) => [.. _links.Where(link => link.Time >= time)];

    /// <summary>Compares a snapshot with the one before.</summary>
    public void Note(AgentSnapshot snapshot)
    {
        // The same scan of the queues may be in several snapshots.
        if (!ReferenceEquals(_lastQueues, snapshot.Listeners))
        {
            _lastQueues = snapshot.Listeners;
            foreach (var listener in snapshot.Listeners)
            {
                Note(listener, snapshot.Time);
            }
        }

        foreach (var (haproxy, backend) in ScanGauges.Backends(snapshot))
        {
            if (_backends.TryGetValue((haproxy, backend.Name), out var before))
            {
                Note(haproxy, before, backend, snapshot.Time);
            }

            _backends[(haproxy, backend.Name)] = backend;
        }

        var present = snapshot.Haproxies.SelectMany(haproxy => haproxy.Backends.Select(backend => (haproxy.Name, backend.Name))).ToHashSet();
        foreach (var name in _backends.Keys.Where(name => !present.Contains(name)).ToList())
        {
            _backends.Remove(name);
        }

        _links.RemoveAll(link => snapshot.Time - link.Time > Kept);
    }

    private void Note(ListenerStatus listener, DateTimeOffset time)
    {
        var key = (listener.Workers, listener.Address, listener.Namespace);
        var known = _queues.TryGetValue(key, out var before);
        var notEmpty = listener.Waiting > 0 ? before.NotEmpty + 1 : 0;
        if (notEmpty == ScansUntilBusy)
        {
            Add(time, string.Create(CultureInfo.InvariantCulture, $"all workers of {listener.Workers} are busy: {listener.Waiting} connections wait at {listener.Address}"));
        }

        var filling = listener.Waiting > 0.7 * listener.Limit;
        if (filling && !before.Filling)
        {
            Add(time, string.Create(CultureInfo.InvariantCulture, $"the accept queue at {listener.Address} fills: {listener.Waiting} of {listener.Limit}"));
        }

        if (known && listener.Drops > before.Drops)
        {
            Add(time, string.Create(CultureInfo.InvariantCulture, $"the accept queue at {listener.Address} is full: {listener.Drops - before.Drops} connections dropped"));
        }

        _queues[key] = (notEmpty, filling, listener.Drops);
    }

    private void Note(string haproxy, BackendStatus before, BackendStatus backend, DateTimeOffset time)
    {
        foreach (var server in backend.Down.Except(before.Down, StringComparer.Ordinal))
        {
            Add(time, $"HAProxy {haproxy} marks {server} of {backend.Name} down");
        }

        foreach (var server in before.Down.Except(backend.Down, StringComparer.Ordinal))
        {
            Add(time, $"HAProxy {haproxy} has {server} of {backend.Name} back");
        }

        if (backend.OwnErrors > before.OwnErrors)
        {
            Add(time, string.Create(CultureInfo.InvariantCulture, $"HAProxy {haproxy} answers {Quantity.Of(backend.OwnErrors - before.OwnErrors, "request")} to {backend.Name} with errors of its own"));
        }
    }

    private void Add(DateTimeOffset time, string what)
    {
        if (_links.Count == Most)
        {
            _links.RemoveAt(0);
        }

        _links.Add(new ChainLink { Time = time, What = what });
        Version++;
    }
}
