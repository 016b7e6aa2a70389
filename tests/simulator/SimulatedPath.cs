using Sidecar.Probes.Values;

namespace Sidecar.Simulator;

/// <summary>What a router does with a packet of a connection that it does not know.</summary>
internal enum Forgetful
{
    Silent,
    Reset,

    /// <summary>A packet of the client's makes a new entry, as conntrack does with tcp_loose.</summary>
    PicksUp,
}

/// <summary>What became of a packet.</summary>
internal enum Fate
{
    Delivered,
    Lost,

    /// <summary>Answered by a RST of the router's.</summary>
    Reset,
}

/// <summary>The way from the workers' host to one server, with a router in between, and the server at its end.</summary>
internal sealed class SimulatedPath(World world, int index) : Actor
{
    private const int RouterFails = 1;
    private const int LinkFails = 2;
    private const int TimeoutChanges = 3;
    private const int ServerRestarts = 4;
    private const int ServerFills = 5;
    private const int PathReturns = 6;
    private const int ServerReturns = 7;
    private const int LinkFailsOnce = 8;
    private const int LegFails = 9;
    private const int FailsOver = 10;
    private const int HoleOpens = 11;
    private const int HoleCloses = 12;

    private readonly Dice _dice = world.Dice;
    private TimeSpan _downUntil;
    private TimeSpan _failsFor;
    private TimeSpan _downSince;
    private bool _downBehindRouter;
    private TimeSpan _hostDownUntil;
    private TimeSpan _fullUntil;
    private TimeSpan _legDownUntil;
    private int _legDown;
    private TimeSpan _legDownSince = TimeSpan.MinValue / 2;
    private bool _burst;
    private TimeSpan _burstAt;

    internal int Index { get; } = index;

    internal TimeSpan RoundTrip { get; set; }

    /// <summary>Independent loss, each way.</summary>
    internal double Loss { get; set; }

    /// <summary>Gilbert-Elliott: mean lengths of the two states in seconds, and the loss each way in the bad one.</summary>
    internal double MeanGood { get; set; }

    internal double MeanBad { get; set; }

    internal double BurstLoss { get; set; }

    /// <summary>Idle time after which the router forgets; null for never.</summary>
    internal TimeSpan? Timeout { get; set; }

    internal Forgetful Router { get; set; }

    /// <summary>Mean hours between router failures, and so on; 0 for never.</summary>
    internal double HoursBetweenRouterFailures { get; set; }

    internal double HoursBetweenOutages { get; set; }

    internal double HoursBetweenTimeoutChanges { get; set; }

    internal double HoursBetweenServerRestarts { get; set; }

    internal double HoursBetweenFullServers { get; set; }

    internal double HoursBetweenDeadLegs { get; set; }

    internal double HoursBetweenFailOvers { get; set; }

    internal double HoursBetweenHoles { get; set; }

    /// <summary>For how long a router is away that restarts, in seconds, and how often it has lost its table.</summary>
    internal (double Least, double Most) RouterAway { get; set; } = (0.05, 120);

    internal double LosesTable { get; set; } = 0.7;

    /// <summary>The router completes handshakes for the server.</summary>
    internal bool IsSynProxy { get; set; }

    /// <summary>What becomes of the agent's own attempts to connect; null: as of anybody's.</summary>
    internal ConnectProbeOutcome? AgentMayNotConnect { get; set; }

    /// <summary>Packets larger than the way allows vanish without a word.</summary>
    internal bool HasHole { get; private set; }

    /// <summary>Connections whose entries the router lost are those established before.</summary>
    internal TimeSpan TableLostAt { get; private set; } = TimeSpan.MinValue;

    /// <summary>Connections of which the server lost everything are those established before.</summary>
    internal TimeSpan ServerLostAt { get; private set; } = TimeSpan.MinValue;

    /// <summary>Until when something was amiss that is no forgotten connection's fault; bounds count from there.</summary>
    internal TimeSpan ExcusedUntil { get; private set; }

    internal bool IsBursty => MeanBad > 0;

    internal string Conditions => $"loss {Loss:0.####}, bursts {MeanGood:0.#} s / {MeanBad:0.##} s at {BurstLoss:0.##}, timeout {Timeout?.TotalSeconds ?? 0:0} s";

    /// <summary>One leg of the bundle is dead.</summary>
    internal bool IsLegDown(int leg, TimeSpan now) => now < _legDownUntil && leg == _legDown;

    /// <summary>How long ago a leg died last.</summary>
    internal TimeSpan LegDiedBefore(TimeSpan now) => now - _legDownSince;

    internal bool IsDown(TimeSpan now) => now < _downUntil || now < _hostDownUntil;

    /// <summary>For how long no fresh connection could have succeeded.</summary>
    internal TimeSpan DownFor(TimeSpan now) => IsDown(now) || now < _fullUntil ? now - _downSince : TimeSpan.Zero;

    internal void Start()
    {
        Next(RouterFails, HoursBetweenRouterFailures, TimeSpan.Zero);
        Next(LinkFails, HoursBetweenOutages, TimeSpan.Zero);
        Next(TimeoutChanges, HoursBetweenTimeoutChanges, TimeSpan.Zero);
        Next(ServerRestarts, HoursBetweenServerRestarts, TimeSpan.Zero);
        Next(ServerFills, HoursBetweenFullServers, TimeSpan.Zero);
        Next(LegFails, HoursBetweenDeadLegs, TimeSpan.Zero);
        Next(FailsOver, HoursBetweenFailOvers, TimeSpan.Zero);
        Next(HoleOpens, HoursBetweenHoles, TimeSpan.Zero);
    }

    internal override void Happen(int what, int version, TimeSpan now)
    {
        switch (what)
        {
            case RouterFails:
                Down(now, _dice.MagnitudeSeconds(RouterAway.Least, RouterAway.Most), behindRouter: false);
                if (_dice.Chance(LosesTable))
                {
                    TableLostAt = now;
                    world.Trace(now, $"path {Index}: router restarts and loses its table");
                }

                Next(RouterFails, HoursBetweenRouterFailures, now);
                break;
            case LinkFails:
                Down(now, _dice.MagnitudeSeconds(0.05, 900), _dice.Chance(0.5));
                world.Trace(now, $"path {Index}: down until {World.Text(_downUntil)}");
                Next(LinkFails, HoursBetweenOutages, now);
                break;
            case TimeoutChanges:
                world.ForgetExpired(this, now);
                Timeout = World.AnyTimeout(_dice);
                world.Trace(now, $"path {Index}: idle timeout is now {Timeout}");
                Next(TimeoutChanges, HoursBetweenTimeoutChanges, now);
                break;
            case ServerRestarts:
                ServerLostAt = now;
                var hostDown = _dice.Chance(0.5);
                var length = _dice.MagnitudeSeconds(0.2, 120);
                world.Trace(now, $"path {Index}: server restarts, host down {hostDown}, for {length.TotalSeconds:0.0} s");
                if (hostDown)
                {
                    MarkDown(now);
                    _hostDownUntil = Later(_hostDownUntil, now + length);
                    world.Queue.Add(_hostDownUntil, this, PathReturns);
                }
                else
                {
                    world.ServerSaysGoodbye(this, now);
                }

                Next(ServerRestarts, HoursBetweenServerRestarts, now);
                break;
            case ServerFills:
                MarkDown(now);
                _fullUntil = Later(_fullUntil, now + _dice.MagnitudeSeconds(1, 300));
                world.Trace(now, $"path {Index}: server accepts nobody until {World.Text(_fullUntil)}");
                world.Queue.Add(_fullUntil, this, ServerReturns);
                Next(ServerFills, HoursBetweenFullServers, now);
                break;
            case LinkFailsOnce:
                Down(now, _failsFor, behindRouter: true);
                break;
            case LegFails:
                _legDown = _dice.Choose(0, 1);
                _legDownSince = now;
                _legDownUntil = now + _dice.MagnitudeSeconds(1, 600);
                world.Trace(now, $"path {Index}: leg {_legDown} is dead until {World.Text(_legDownUntil)}");
                world.Queue.Add(_legDownUntil, this, PathReturns);
                Next(LegFails, HoursBetweenDeadLegs, now);
                break;
            case FailsOver:
                (TableLostAt, ServerLostAt) = (now, now);
                Down(now, _dice.MagnitudeSeconds(0.01, 60), behindRouter: false);
                world.Trace(now, $"path {Index}: fails over to a server that knows no connection");
                Next(FailsOver, HoursBetweenFailOvers, now);
                break;
            case HoleOpens:
                HasHole = true;
                world.Trace(now, $"path {Index}: large packets vanish");
                world.Queue.Add(now + _dice.MagnitudeSeconds(10, 7200), this, HoleCloses);
                break;
            case HoleCloses:
                HasHole = false;
                world.Trace(now, $"path {Index}: large packets pass again");
                Next(HoleOpens, HoursBetweenHoles, now);
                break;
            case PathReturns or ServerReturns:
                Excuse(now);
                break;
        }
    }

    /// <summary>The link to the server's host fails once.</summary>
    internal void DownLater(TimeSpan from, TimeSpan length)
    {
        _failsFor = length;
        world.Queue.Add(from, this, LinkFailsOnce);
    }

    internal void Excuse(TimeSpan until) => ExcusedUntil = Later(ExcusedUntil, until);

    /// <summary>A packet from the client's host to the server's.</summary>
    internal Fate Forward(SimulatedConnection connection, TimeSpan now, bool isLarge = false)
    {
        if (IsLegDown(connection.Leg, now) || (now < _downUntil && !_downBehindRouter) || IsLost(now, 0.5))
        {
            return Fate.Lost;
        }

        if (connection.IsForgotten(now))
        {
            switch (Router)
            {
                case Forgetful.Silent:
                    return Fate.Lost;
                case Forgetful.Reset:
                    return Fate.Reset;
                default:
                    connection.EntryMade = now;
                    break;
            }
        }

        connection.EntrySeen = now;
        return now < _downUntil || now < _hostDownUntil || IsLost(now, 0.5) || (isLarge && HasHole) ? Fate.Lost : Fate.Delivered;
    }

    /// <summary>A packet from the server's host to the client's.</summary>
    internal Fate Backward(SimulatedConnection connection, TimeSpan now)
    {
        if (now < _hostDownUntil || (now < _downUntil && _downBehindRouter) || IsLost(now, 0.5) || connection.IsForgotten(now))
        {
            return Fate.Lost;
        }

        connection.EntrySeen = now;
        return now < _downUntil || IsLegDown(connection.Leg, now) || IsLost(now, 0.5) ? Fate.Lost : Fate.Delivered;
    }

    /// <summary>The server is away while the router in front of it is there and speaks for it.</summary>
    internal bool IsSpokenFor(TimeSpan now) => IsSynProxy && (now >= _downUntil || _downBehindRouter) && (IsDown(now) || now < _fullUntil);

    /// <summary>The agent's connect probe, from that port or from any.</summary>
    internal void Probe(int localPort, TimeSpan timeout, TimeSpan now, Action<ConnectProbeResult, int, TimeSpan> ended) =>
        _ = new SimulatedProbe(world, this, localPort != 0 ? localPort : world.AnyPort(), timeout, ended, now);

    /// <summary>Whether a SYN sent now leads to a connection.</summary>
    internal ConnectProbeOutcome Handshake(TimeSpan now, int leg = -1)
    {
        if (IsSpokenFor(now))
        {
            return ConnectProbeOutcome.Connected;
        }

        if (IsLegDown(leg, now) || IsDown(now) || now < _fullUntil || IsLost(now, 1) || IsLost(now, 1))
        {
            return ConnectProbeOutcome.TimedOut;
        }

        return ConnectProbeOutcome.Connected;
    }

    private void Down(TimeSpan now, TimeSpan length, bool behindRouter)
    {
        MarkDown(now);
        _downUntil = Later(_downUntil, now + length);
        _downBehindRouter = behindRouter;
        world.Queue.Add(_downUntil, this, PathReturns);
    }

    private void MarkDown(TimeSpan now)
    {
        if (!IsDown(now) && now >= _fullUntil)
        {
            _downSince = now;
        }
    }

    private void Next(int what, double hours, TimeSpan now)
    {
        if (hours > 0)
        {
            world.Queue.Add(now + _dice.Exponential(hours * 3600), this, what);
        }
    }

    /// <summary>Whether loss takes a packet; <paramref name="share"/> is the part of the way it travels.</summary>
    private bool IsLost(TimeSpan now, double share)
    {
        var p = Loss;
        if (IsBursty)
        {
            // The two-state chain, moved on by the time that has passed.
            var toBad = 1 / MeanGood;
            var toGood = 1 / MeanBad;
            var stationary = toBad / (toBad + toGood);
            var kept = Math.Exp(-(toBad + toGood) * (now - _burstAt).TotalSeconds);
            var bad = stationary + (((_burst ? 1 : 0) - stationary) * kept);
            _burst = _dice.Chance(bad);
            _burstAt = now;
            if (_burst)
            {
                p = Math.Max(p, BurstLoss);
            }
        }

        return p > 0 && _dice.Chance(share == 1 ? p : 1 - Math.Sqrt(1 - p));
    }

    private static TimeSpan Later(TimeSpan a, TimeSpan b) => a > b ? a : b;
}
