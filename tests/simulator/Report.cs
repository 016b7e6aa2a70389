using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;

namespace Sidecar.Simulator;

/// <summary>A property that did not hold.</summary>
/// <param name="Seed">The world's seed: with it the same thing happens again.</param>
/// <param name="Time">When.</param>
/// <param name="Kind">Which property, in a word.</param>
/// <param name="Text">What happened.</param>
internal sealed record Violation(ulong Seed, TimeSpan Time, string Kind, string Text)
{
    /// <summary>What happened, with the command that makes it happen again.</summary>
    public override string ToString() => $"{World.Text(Time)}  {Kind}: {Text}\n    again: scripts/simulate.sh --replay {Seed}";
}

/// <summary>What was simulated and what came of it.</summary>
internal sealed class Report
{
    /// <summary>Failures of one kind that are told; the others are counted.</summary>
    private const int Kept = 20;

    private readonly Dictionary<string, List<double>> _releases = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _kinds = new(StringComparer.Ordinal);

    internal long Worlds { get; set; }
    internal double ConnectionHours { get; set; }
    internal long Connections { get; set; }
    internal long Turns { get; set; }
    internal long Looks { get; set; }
    internal long FreshConnections { get; set; }
    internal long Stuck { get; set; }
    internal long Recycled { get; set; }
    internal long Expired { get; set; }
    internal long Recovered { get; set; }
    internal long DidNotHelp { get; set; }
    internal long Terminated { get; set; }
    internal long WrongRecycles { get; set; }
    internal long WrongTerminations { get; set; }

    internal Dictionary<Guardrail, long> Withheld { get; } = Enum.GetValues<Guardrail>().ToDictionary(guardrail => guardrail, _ => 0L);

    /// <summary>The first twenty of each kind; <see cref="Kinds"/> counts all.</summary>
    internal List<Violation> Violations { get; } = [];

    internal IReadOnlyDictionary<string, int> Kinds => _kinds;

    internal void Violation(World world, TimeSpan now, string kind, string text)
    {
        world.Trace(now, $"VIOLATION {kind}: {text}");
        Failure(world.Seed, now, kind, text);
    }

    internal void Failure(ulong seed, TimeSpan now, string kind, string text)
    {
        _kinds[kind] = _kinds.GetValueOrDefault(kind) + 1;
        if (_kinds[kind] <= Kept)
        {
            Violations.Add(new Violation(seed, now, kind, text));
        }
    }

    /// <summary>Takes in what another world came to.</summary>
    internal void Add(Report other)
    {
        Worlds += other.Worlds;
        ConnectionHours += other.ConnectionHours;
        Connections += other.Connections;
        Turns += other.Turns;
        Looks += other.Looks;
        FreshConnections += other.FreshConnections;
        Stuck += other.Stuck;
        Recycled += other.Recycled;
        Expired += other.Expired;
        Recovered += other.Recovered;
        DidNotHelp += other.DidNotHelp;
        Terminated += other.Terminated;
        WrongRecycles += other.WrongRecycles;
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
    /// A dead connection with an unanswered send has come to its end. Where recycling is on and the loss is what a
    /// network may have, that has to be soon.
    /// </summary>
    internal void NoteRelease(World world, SimulatedConnection connection, TimeSpan now, TimeSpan hung, string why)
    {
        var section = connection.Tracked?.Upstream.Section ?? world.Configuration.Upstreams[connection.Path.Index];
        var path = connection.Path;
        var recycles = section.Recycle && world.Configuration.Agent.Mode == AgentMode.Protect;
        var weather = path.IsBursty ? "bursts" : path.Loss == 0 ? "no loss" : path.Loss <= 0.01 ? "loss up to 1 %" : "loss up to 10 %";
        var name = $"{(recycles ? "recycle" : "no recycle"),-11} {weather,-15}";
        (_releases.TryGetValue(name, out var list) ? list : _releases[name] = []).Add(hung.TotalSeconds);

        // After an outage the next retransmissions are the evidence, and they come when the kernel's back-off has it: up to
        // two minutes apart. What was silent through an outage is promised nothing but that, and shows in the table.
        // The same goes for a silence that the agent found when it came.
        var sawOutage = hung < now - connection.Socket.FirstSent;
        var foundLate = connection.Tracked?.Evidence(now).Stall?.FoundLate == true;
        if (recycles && !sawOutage && !foundLate && Bound(path) is { } least && least + connection.Socket.Timeout is var bound && hung > bound)
        {
            Violation(world, now, "bound", $"{connection} hung for {hung.TotalSeconds:0.0} s, at most {bound.TotalSeconds:0} s were promised ({weather}, ended: {why})");
        }
    }

    /// <summary>The time within which a dead connection must be released; null where the loss allows no promise.</summary>
    internal static TimeSpan? Bound(SimulatedPath path) => path.IsBursty ? null
        : path.Loss == 0 ? TimeSpan.FromSeconds(60)
        : path.Loss <= 0.01 ? TimeSpan.FromSeconds(120)
        : null;

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
                Wrong.Add(new Violation(world.Seed, now, "burst", text));
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
        to.WriteLine($"{Turns,14:N0} turns of the agent, {Looks:N0} looks, {FreshConnections:N0} fresh connections");
        to.WriteLine($"{Stuck,14:N0} stalls judged stuck");
        to.WriteLine($"{Recycled,14:N0} connections recycled ({Expired:N0} of them resting), {WrongRecycles:N0} of them alive; {Recovered:N0} recovered or gone at the last look");
        to.WriteLine($"{Terminated,14:N0} workers terminated, {WrongTerminations:N0} of them wrongly; {DidNotHelp:N0} recycles of no help");
        to.WriteLine($"{Withheld.Values.Sum(),14:N0} remedies withheld: {string.Join(", ", Withheld.Where(pair => pair.Value > 0).Select(pair => $"{pair.Key.ToName()} {pair.Value:N0}"))}");
        to.WriteLine("seconds from the first unanswered send to the end of dead connections:      number   median      99 %  longest");
        foreach (var (name, times) in _releases.OrderBy(pair => pair.Key, StringComparer.Ordinal))
        {
            times.Sort();
            to.WriteLine($"    {name,-66} {times.Count,9:N0} {times[times.Count / 2],8:0.00} {times[(int)(times.Count * 0.99)],9:0.0} {times[^1],8:0.0}");
        }

        to.WriteLine($"on paths with bursts of loss: {WrongInBursts} live connections recycled in {HoursInBursts:N0} connection-hours");
        to.WriteLine(_kinds.Count == 0 ? "violations: none" : $"violations: {string.Join(", ", _kinds.Select(pair => $"{pair.Key} {pair.Value}"))}");
    }
}
