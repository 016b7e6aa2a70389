using System.Text.RegularExpressions;
using Shouldly;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Endpoints;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>What is shown to people: one thing is not several, and a time says whose it is.</summary>
public sealed partial class WordsTests
{
    [Fact]
    public void One_thing_is_not_several()
    {
        var snapshot = Samples.Snapshot([Samples.Connection(), Samples.Connection(Verdict.Outage)]) with
        {
            Upstreams = [Samples.Upstream(server: (1, 1)), Samples.Upstream("other")],
            Groups = [Samples.Group() with { Processes = 1, Children = 1, Zombies = 1, GonePeersServed = 1, GonePeersWaiting = 1, CpuCores = 1 }],
            Listeners = [Samples.Listener(0) with { Waiting = 1, Limit = 1, Connections = 1, Drops = 1, Peak = 1 }],
            Haproxies = [Samples.Haproxy() with { Sessions = 1, SessionLimit = 1, Backends = [.. Samples.Haproxy().Backends.Select(backend => backend with { Queue = 1, Sessions = 1, Downs = 1, OwnErrors = 1 })] }],
        };
        var shown = new List<string> { Shown(snapshot), StatusPage.Render(snapshot, Samples.Health(), [], "0.1.0") };
        foreach (var check in new[] { Checks.Database, Checks.Pool, Checks.Workers, Checks.Version })
        {
            shown.Add(check(snapshot, Samples.Health(), null).Line);
        }

        foreach (var text in shown)
        {
            Several().Matches(text).Select(match => match.Value).ShouldBeEmpty(text);
        }

        shown[0].ShouldContain("1 process, 1 child; 1 child not reaped; 1 core");
    }

    [Fact]
    public void Every_time_of_day_says_that_it_is_UTC()
    {
        var output = new StringWriter();
        IncidentsCommand.Show(Environment(output), "/var/lib/x", [Samples.Incident("a", "released")]);
        var texts = new[] { output.ToString(), Shown(Samples.Snapshot()), StatusPage.Render(Samples.Snapshot(), Samples.Health(), [Samples.Incident("a")], "0.1.0") };
        foreach (var text in texts)
        {
            TimeOfDay().Count(text).ShouldBeGreaterThan(0, text);
            TimeOfDay().Matches(text).ShouldAllBe(match => match.Groups[1].Value == "Z", text);
        }
    }

    private static string Shown(AgentSnapshot snapshot)
    {
        var output = new StringWriter();
        StatusCommand.Show(Environment(output), StatusDocument.From(snapshot, running: true));
        return output.ToString();
    }

    private static CommandEnvironment Environment(TextWriter output) => new() { Out = output, Error = output, Colors = false, Width = 200 };

    /// <summary>Behind the number one, perhaps with an adjective between: a word that ends in a single s.</summary>
    [GeneratedRegex(@"(?<![\d.:,/])1 (?:[a-z]+ )?(?:connection|session|time|error|standby|processe|children|backend|upstream|request|address|server|core)e?s?(?<=s|children)\b")]
    private static partial Regex Several();

    [GeneratedRegex(@"\b\d\d:\d\d:\d\d(Z?)")]
    private static partial Regex TimeOfDay();
}
