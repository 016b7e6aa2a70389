using System.Collections.Concurrent;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>What ends in the background waits here for the loop, which it wakes.</summary>
internal sealed class Inbox : IDisposable
{
    private readonly ConcurrentQueue<(PathTracker Path, ConnectProbeResult? Result)> _probes = new();
    private readonly ConcurrentQueue<ReleaseEnded> _releases = new();
    private readonly AutoResetEvent _wake = new(false);
    private volatile bool _isClosed;

    /// <summary>Ends the loop's wait.</summary>
    public void Wake()
    {
        if (!_isClosed)
        {
            try
            {
                _wake.Set();
            }
            catch (ObjectDisposedException)
            {
                // the loop has ended meanwhile
            }
        }
    }

    /// <summary>Waits until something comes in; false when the time is over.</summary>
    public bool Wait(TimeSpan atMost) => _wake.WaitOne(atMost);

    public void ConnectProbeEnded(PathTracker path, ConnectProbeResult? result)
    {
        _probes.Enqueue((path, result));
        Wake();
    }

    public void ReleaseEnded(ReleaseEnded ended)
    {
        _releases.Enqueue(ended);
        Wake();
    }

    /// <summary>Hands everything over, on the loop's thread.</summary>
    public void Empty(World world, RemedyEngine engine, TimeSpan now)
    {
        while (_probes.TryDequeue(out var probe))
        {
            world.ConnectProbeEnded(probe.Path, probe.Result, now);
            engine.ConnectProbeEnded(probe.Path, now);
        }

        while (_releases.TryDequeue(out var ended))
        {
            engine.ReleaseEnded(ended);
        }
    }

    public void Dispose()
    {
        _isClosed = true;
        _wake.Dispose();
    }
}
