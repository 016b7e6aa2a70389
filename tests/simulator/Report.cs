using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;

namespace Sidecar.Simulator;

/// <summary>A property that did not hold.</summary>
/// <param name="Replay">The world's seed, and its kind where that is not the seed's own: with it the same thing happens again.</param>
/// <param name="Time">When.</param>
/// <param name="Kind">Which property, in a word.</param>
/// <param name="Text">What happened.</param>
internal sealed record Violation(string Replay, TimeSpan Time, string Kind, string Text)
{
    /// <summary>What happened, with the command that makes it happen again.</summary>
    public override string ToString() => $"{World.Text(Time)}  {Kind}: {Text}\n    again: scripts/simulate.sh --replay {Replay}";
}

/// <summary>What was simulated and what came of it.</summary>
internal sealed class Report
{
    /// <summary>Failures of one kind that are told; the others are counted.</summary>
    private const int Kept = 20;

    private readonly Dictionary<string, List<Release>> _releases = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _kinds = new(StringComparer.Ordinal);

    internal long Worlds { get; set; }
    internal double ConnectionHours { get; set; }
    internal long Connections { get; set; }
    internal long Ticks { get; set; }
    internal long Scans { get; set; }
    internal long FreshConnections { get; set; }
    internal long WindowProbes { get; set; }

    internal long Resumed { get; set; }
    internal long EndedByKeepalive { get; set; }
    internal long Stuck { get; set; }
    internal long Recycled { get; set; }
    internal long Expired { get; set; }
    internal long Recovered { get; set; }
    internal long DidNotHelp { get; set; }
    internal long Terminated { get; set; }
    internal long WrongRecycles { get; set; }
    internal long ClosedOnDeadLeg { get; set; }

    /// <summary>The same where the leg came back between the last question, which it swallowed, and the close a third of a second later.</summary>
    internal long ClosedAsLegReturned { get; set; }

    /// <summary>Live ones that sent more than their way lets through, where no window probe may be sent that would tell them from dead ones.</summary>
    internal long ClosedInHole { get; set; }

    /// <summary>Live ones whose leg had died, when all connect probes had taken the other and the path had never shown to have two.</summary>
    internal long ClosedOnUnknownLeg { get; set; }
    internal long WrongTerminations { get; set; }

    internal Dictionary<Guardrail, long> Withheld { get; } = Enum.GetValues<Guardrail>().ToDictionary(guardrail => guardrail, _ => 0L);

    /// <summary>The first twenty of each kind; <see cref="Kinds"/> counts all.</summary>
    internal List<Violation> Violations { get; } = [];

    internal IReadOnlyDictionary<string, int> Kinds => _kinds;

    internal void Violation(World world, TimeSpan now, string kind, string text)
    {
        world.Trace(now, $"VIOLATION {kind}: {text}");
        Failure(world.Replay, now, kind, text);
    }

    internal void Failure(string replay, TimeSpan now, string kind, string text)
    {
        _kinds[kind] = _kinds.GetValueOrDefault(kind) + 1;
        if (_kinds[kind] <= Kept)
        {
            Violations.Add(new Violation(replay, now, kind, text));
        }
    }

    /// <summary>Takes in what another world came to.</summary>
    internal void Add(Report other)
    {
        Worlds += other.Worlds;
        ConnectionHours += other.ConnectionHours;
        Connections += other.Connections;
        Ticks += other.Ticks;
        Scans += other.Scans;
        FreshConnections += other.FreshConnections;
        WindowProbes += other.WindowProbes;
        Resumed += other.Resumed;
        EndedByKeepalive += other.EndedByKeepalive;
        Stuck += other.Stuck;
        Recycled += other.Recycled;
        Expired += other.Expired;
        Recovered += other.Recovered;
        DidNotHelp += other.DidNotHelp;
        Terminated += other.Terminated;
        WrongRecycles += other.WrongRecycles;
        ClosedOnDeadLeg += other.ClosedOnDeadLeg;
        ClosedAsLegReturned += other.ClosedAsLegReturned;
        ClosedInHole += other.ClosedInHole;
        ClosedOnUnknownLeg += other.ClosedOnUnknownLeg;
        WrongTerminations += other.WrongTerminations;
        WrongInBursts += other.WrongInBursts;
        HoursInBursts += other.HoursInBursts;
        foreach (var (guardrail, number) in other.Withheld)
        {
            Withheld[guardrail] += number;
        }

        foreach (var (name, times) in other._releases)
        {
            (_releases.TryGetValue(name, out var list) ? list : _releases[name] = []).AddRange(times);
        }

        // As many of each kind as one report would have kept.
        Violations.AddRange(other.Violations.Where((violation, i) =>
            _kinds.GetValueOrDefault(violation.Kind) + other.Violations.Take(i).Count(earlier => earlier.Kind == violation.Kind) < Kept));
        foreach (var (kind, number) in other._kinds)
        {
            _kinds[kind] = _kinds.GetValueOrDefault(kind) + number;
        }

        Wrong.AddRange(other.Wrong.Take(Math.Max(0, Kept - Wrong.Count)));
    }

    /// <summary>
    /// A dead connection on which somebody waited has come to its end. It could be proven dead from the moment at which all of these
    /// held: it was silent (data unanswered, or an answer awaited that cannot come), it was dead (forgotten, or lost with a table or
    /// a server), the path and the server were up for fresh connections, and the agent was running. What the agent may use for the proof
    /// depends on the world, and each has figures of its own.
    /// </summary>
    internal void NoteRelease(World world, SimulatedConnection connection, TimeSpan now, TimeSpan hung, bool isAwaited, string why)
    {
        var section = connection.Tracked?.Upstream.Section ?? world.Configuration.Upstreams[connection.Path.Index];
        var path = connection.Path;
        var recycles = section.Recycle && world.Configuration.Agent.Mode == AgentMode.Protect;
        var weather = path.IsBursty ? "bursts" : path.Loss <= 0.01 ? "loss up to 1 %" : "loss up to 10 %";
        var means = (world.ProbesPermitted, path.AgentMayNotConnect is null) switch
        {
            (true, true) => "window and connect probes",
            (true, false) when world.Connections.Any(other => other.Path == path && other.IsLive(now)) => "window probes only",
            (true, false) => "window probes only, nobody to ask",
            (false, true) => "connect probes only",
            _ => "neither may be sent",
        };
        var name = !recycles ? "recycling is off" : isAwaited ? $"answer lost: {means}, {weather}" : $"{world.Kind}: {means}, {weather}";
        (_releases.TryGetValue(name, out var list) ? list : _releases[name] = []).Add(new Release((float)hung.TotalSeconds, world.Replay, (float)now.TotalSeconds));

        // After an outage the next retransmissions are the evidence, and they come when the kernel's back-off has it: up to
        // two minutes apart. What was silent through an outage is promised nothing but that, and shows in the table.
        // The same goes for a silence that the agent found when it came.
        var sawOutage = hung < now - connection.Socket.FirstSent;
        var foundLate = connection.Tracked?.Evidence(now).Stall?.FoundLate == true;
        if (recycles && !isAwaited && path.AgentMayNotConnect is null && !sawOutage && !foundLate && Bound(path) is { } least && least + connection.Socket.Timeout is var bound && hung > bound)
        {
            Violation(world, now, "bound", $"{connection} hung for {hung.TotalSeconds:0.0} s, at most {bound.TotalSeconds:0} s were promised ({name}, ended: {why})");
        }
    }

    /// <summary>The time within which a dead connection must be released; null where the loss allows no promise.</summary>
    internal static TimeSpan? Bound(SimulatedPath path) => path.IsBursty ? null
        : path.Loss == 0 ? TimeSpan.FromSeconds(60)
        : path.Loss <= 0.01 ? TimeSpan.FromSeconds(120)
        : null;

    /// <summary>A process was terminated, or was to be, that must not be.</summary>
    internal void WrongTermination(World world, TimeSpan now, string kind, string text)
    {
        WrongTerminations++;
        Violation(world, now, kind, text);
    }

    /// <summary>
    /// A live connection was recycled. On a path with bursts of loss this cannot be excluded, only made rare: there the
    /// count is checked at the end.
    /// </summary>
    internal void WrongRecycle(World world, SimulatedPath path, TimeSpan now, string text)
    {
        WrongRecycles++;
        if (path.IsBursty)
        {
            WrongInBursts++;
            world.Trace(now, $"WRONG, in a burst: {text}");
            if (WrongInBursts <= Kept)
            {
                Wrong.Add(new Violation(world.Replay, now, "burst", text));
            }
        }
        else
        {
            Violation(world, now, "live", text);
        }
    }

    /// <summary>Live connections recycled on paths with bursts of loss, and the hours of connections on such paths.</summary>
    internal long WrongInBursts { get; private set; }

    internal double HoursInBursts { get; set; }

    internal List<Violation> Wrong { get; } = [];

    /// <summary>One in two thousand connection-hours, on networks that are bad all day; a few are chance.</summary>
    internal bool TooManyWrongInBursts => WrongInBursts > 5 + (HoursInBursts / 2000);

    internal bool Failed => _kinds.Count > 0 || TooManyWrongInBursts;

    internal void Write(TextWriter to)
    {
        to.WriteLine($"{ConnectionHours,14:N0} connection-hours in {Worlds:N0} worlds, {Connections:N0} connections");
        to.WriteLine($"{Ticks,14:N0} ticks of the agent, {Scans:N0} observations, {FreshConnections:N0} connect probes, {WindowProbes:N0} window probes, {Resumed:N0} resumed");
        to.WriteLine($"{EndedByKeepalive,14:N0} live connections ended by keepalives of the agent's (outages longer than dead-after, or than the kernel repeats data)");
        to.WriteLine($"{Stuck,14:N0} stalls judged stuck");
        to.WriteLine($"{Recycled,14:N0} connections recycled ({Expired:N0} of them resting), {WrongRecycles:N0} of them alive; {Recovered:N0} recovered or gone at the last scan");
        to.WriteLine($"{Terminated,14:N0} workers terminated, {WrongTerminations:N0} of them wrongly; {DidNotHelp:N0} recycles of no help");
        to.WriteLine($"{Withheld.Values.Sum(),14:N0} remedies withheld: {string.Join(", ", Withheld.Where(pair => pair.Value > 0).Select(pair => $"{pair.Key.ToName()} {pair.Value:N0}"))}");
        to.WriteLine("seconds from when a dead connection could be proven dead to its end:           number   median     99 %   99.9 %  longest   again");
        foreach (var (name, releases) in _releases.OrderBy(static pair => pair.Key, StringComparer.Ordinal))
        {
            releases.Sort(static (a, b) => a.Seconds.CompareTo(b.Seconds));
            to.WriteLine($"    {name,-66} {releases.Count,9:N0} {At(releases, 0.5),8:0.00} {At(releases, 0.99),8:0.0} {At(releases, 0.999),8:0.0} {releases[^1].Seconds,8:0.0}   {releases[^1].Replay} at {releases[^1].At:0}");
        }

        to.WriteLine($"live connections closed for a reason: {ClosedOnDeadLeg} after half a minute on a dead leg, {ClosedAsLegReturned} as it came back, {ClosedOnUnknownLeg} on a dead leg of a path not known to have several, {ClosedInHole} in a black hole where no window probe may be sent");
        to.WriteLine($"on paths with bursts of loss: {WrongInBursts} live connections recycled in {HoursInBursts:N0} connection-hours");
        to.WriteLine(_kinds.Count == 0 ? "violations: none" : $"violations: {string.Join(", ", _kinds.Select(pair => $"{pair.Key} {pair.Value}"))}");
    }
    private static float At(List<Release> releases, double share) => releases[(int)(releases.Count * share)].Seconds;

    /// <summary>The end of a dead connection: after how long, in which world, and when in it.</summary>
    private readonly record struct Release(float Seconds, string Replay, float At);
}
