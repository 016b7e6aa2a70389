using System.Diagnostics;
using Sidecar.Probes.Values;

namespace Sidecar.Simulator;

/// <summary>A connect probe: SYNs at 0, 1 and 3 s, as the kernel sends them, and a question that the server itself answers.</summary>
internal sealed class SimulatedProbe : Actor
{
    private static readonly int[] SynsAt = [0, 1, 3];

    private readonly World _world;
    private readonly SimulatedPath _path;
    private readonly Action<ConnectProbeResult, int, TimeSpan> _ended;
    private readonly TimeSpan _started;
    private readonly TimeSpan _timeout;
    private readonly int _port;
    private readonly int _generation;
    private int _syns;

    internal SimulatedProbe(World world, SimulatedPath path, int port, TimeSpan timeout, Action<ConnectProbeResult, int, TimeSpan> ended, TimeSpan now)
    {
        (_world, _path, _port, _timeout, _ended, _started, _generation) = (world, path, port, timeout, ended, now, world.Agent.Generation);
        world.NoteProbe();
        if (path.AgentMayNotConnect == ConnectProbeOutcome.NotTried)
        {
            world.Queue.Add(now, this, 1 + (int)ConnectProbeOutcome.NotTried);
        }
        else
        {
            Syn(now);
        }
    }

    internal override void Happen(int what, int version, TimeSpan now)
    {
        if (what == 0)
        {
            Syn(now);
            return;
        }

        var outcome = (ConnectProbeOutcome)(what - 1);
        var isUp = outcome == ConnectProbeOutcome.Connected;
        var elapsed = (long)((now - _started).TotalSeconds * Stopwatch.Frequency);
        var result = new ConnectProbeResult(outcome, 0, elapsed, isUp ? _syns - 1 : 0, null)
        {
            AnswersWindowProbe = _world.ProbesPermitted && isUp ? true : null,
            AnsweredAfter = isUp ? _path.RoundTrip : null,
            LocalPort = _port,
        };
        _ended(result, _generation, now);
    }

    private void Syn(TimeSpan now)
    {
        _syns++;
        _world.Count(_syns == 1 ? new TcpCounters(1, 0, 0) : new TcpCounters(0, 0, 1), now);
        if (_path.AgentMayNotConnect is null && _path.Handshake(now, _world.LegOf(_port)) == ConnectProbeOutcome.Connected)
        {
            // A proxy accepts, and nobody answers the question.
            if (_path.IsSpokenFor(now))
            {
                _world.Queue.Add(_started + _timeout, this, 1 + (int)ConnectProbeOutcome.NoAnswer);
            }
            else
            {
                _world.Queue.Add(now + _path.RoundTrip, this, 1 + (int)ConnectProbeOutcome.Connected);
            }
        }
        else if (_syns < SynsAt.Length && TimeSpan.FromSeconds(SynsAt[_syns]) < _timeout)
        {
            _world.Queue.Add(_started + TimeSpan.FromSeconds(SynsAt[_syns]), this, 0);
        }
        else
        {
            _world.Queue.Add(_started + _timeout, this, 1 + (int)ConnectProbeOutcome.TimedOut);
        }
    }
}
