using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using Sidecar.Agent.Action;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Measurement;
using Sidecar.Agent.Telemetry;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>A state directory that an earlier run, a full disk, an editor or an enemy has left behind.</summary>
internal abstract class StateFileTarget : FuzzTarget
{
    protected static readonly string[] Words =
    [
        "null", "{}", "[]", "\"\"", "1e308", "-1", "1e-400", "99999999999999999999", "\"9999-12-31T23:59:59.9999999Z\"", "\"0001-01-01T00:00:00Z\"", "\"0001-01-01T00:00:00+14:00\"", "true", "\u0000",
        "{\"a\":", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "\n", "\"\\ud800\"", ",", "}",
    ];

    protected string State { get; } = Scratch.Directory();

    public override void Dispose()
    {
        base.Dispose();
        Directory.Delete(State, recursive: true);
    }

    /// <summary>A file with values replaced by others, or with any other damage.</summary>
    protected static byte[] Hostile(Dice dice, string good)
    {
        var text = good;
        for (var times = dice.Choose(0, 3); times > 0; times--)
        {
            // A whole value for another: what comes of that still parses.
            var at = text.IndexOf(':', dice.Choose(0, text.Length - 1));
            var end = at < 0 ? -1 : text.IndexOfAny([',', '}', ']', '\n'], at);
            if (end > 0)
            {
                text = string.Concat(text.AsSpan(0, at + 1), dice.Pick<string>(Words), text.AsSpan(end));
            }
        }

        var bytes = Encoding.UTF8.GetBytes(text);
        return dice.Chance(0.4) ? dice.Damage(bytes, Words) : bytes;
    }
}

/// <summary>The evidence about idle timeouts: read, or set aside; and what was read makes an estimate.</summary>
internal sealed class EvidenceTarget : StateFileTarget
{
    private const string Good = """
        {"version":1,"paths":[{"path":{"namespace":"own","source":"10.0.0.1","route":"","destination":"10.0.0.2:5432"},
        "evidence":{"count":3,"observations":[{"gap_seconds":350,"outcome":"Lost","at":"2026-01-02T03:04:05Z","source":"Active","weight":1},
        {"gap_seconds":300,"outcome":"Survived","at":"2026-01-02T03:04:05Z","source":"Passive","weight":2.5}]}}]}
        """;

    internal override void Try(Dice dice)
    {
        var path = Path.Combine(State, EvidenceStore.FileName);
        File.WriteAllBytes(path, Hostile(dice, Good));
        var store = new EvidenceStore(State, NullLogger.Instance);
        var kept = store.Load();
        Hold(kept.Count > 0 || !File.Exists(path) || new FileInfo(path).Length < 200, "a file that cannot be used was left in place");
        var now = DateTimeOffset.UnixEpoch.AddYears(56);
        foreach (var evidence in kept.Values)
        {
            var estimator = new PathEstimator(evidence);
            estimator.Add(new GapObservation(dice.Seconds(1, 4000), GapOutcome.Survived, now, EvidenceSource.Passive));
            var estimate = estimator.Estimate(now);
            Hold(estimate.Lower >= TimeSpan.Zero && (estimate.Upper is null || estimate.Upper >= estimate.Lower || estimate.Contradicted), "an estimate upside down");
            _ = estimator.Keep();
        }

        store.Save(kept);
        Hold(store.Load().Count == kept.Count, "what was saved is not read again");
    }
}

/// <summary>What was set on sockets by an earlier run.</summary>
internal sealed class LedgerTarget : StateFileTarget
{
    private static readonly string Good = $$$"""
        {"boot_id":"{{{File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim()}}}","sockets":[{"namespace":4026531840,"cookie":5,"connection":"a -> b",
        "original":{"enabled":false,"idle":"02:00:00","interval":"00:01:15","count":9,"user_timeout":"00:00:00"},
        "armed":{"enabled":true,"idle":"00:00:30","interval":"00:00:10","count":9,"user_timeout":"00:00:00"}}]}
        """;

    internal override void Try(Dice dice)
    {
        File.WriteAllBytes(Path.Combine(State, "keepalives.json"), Hostile(dice, Good));
        var world = new Sidecar.Agent.Core.Tracking.World(new SidecarConfiguration { Agent = new AgentSection(), Upstreams = [], Workers = [], Files = [] }, 1, 1, _ => false);
        var engine = new RemedyEngine(world);
        var ledger = new KeepaliveLedger(State, NullLogger.Instance);
        engine.Recall(ledger.Load());
        ledger.Save(engine, TimeSpan.Zero, atOnce: true);
        var damaged = Path.Combine(State, "keepalives.json.damaged");
        File.Delete(damaged);
        _ = new KeepaliveLedger(State, NullLogger.Instance).Load();
        _ = new KeepaliveLedger(State, NullLogger.Instance).Load();
        Hold(!File.Exists(damaged) || !File.Exists(Path.Combine(State, "keepalives.json")), "a file that was set aside is still there");
        File.Delete(Path.Combine(State, "keepalives.json.damaged"));
    }
}

/// <summary>The incidents of earlier runs, through the store of the running agent and the command that shows them.</summary>
internal sealed class IncidentsTarget : StateFileTarget
{
    private static readonly string Good = Encoding.UTF8.GetString(IncidentJson.Line(new Incident
    {
        Id = "20260102T030405.006Z-000001",
        Time = DateTimeOffset.UnixEpoch.AddYears(56),
        Upstream = "db",
        Cause = "stuck",
        Remedy = "terminate",
        Outcome = "pending",
        Pid = 4711,
        Executable = "/usr/bin/uwsgi-core",
        Unit = "uwsgi.service",
        Workers = "web",
        WithheldBy = null,
        Local = "10.0.0.1:40000",
        Peer = "10.0.0.2:5432",
        Why = "4 sends unanswered",
        StuckSeconds = 0.9,
        ReleaseSeconds = 1.5,
        Evidence = new Dictionary<string, string>(StringComparer.Ordinal) { ["odds"] = "1e5" },
    }));

    internal override void Try(Dice dice)
    {
        var file = new List<byte>();
        for (var lines = dice.Choose(0, 6); lines > 0; lines--)
        {
            file.AddRange(Hostile(dice, Good));
        }

        File.WriteAllBytes(Path.Combine(State, dice.Chance(0.8) ? IncidentReader.FileName : IncidentReader.RotatedFileName), [.. file]);
        using (var store = new IncidentStore(State, NullLogger.Instance, TimeProvider.System))
        {
            Hold(store.Problem is null, $"incidents cannot be stored: {store.Problem}");
            foreach (var incident in store.Recent(1000))
            {
                var line = Encoding.UTF8.GetString(IncidentJson.Line(incident));
                Hold(incident.Upstream is not null && incident.Cause is not null && incident.Remedy is not null && incident.Outcome is not null && incident.Why is not null
                    && incident.Evidence?.Values.All(value => value is not null) == true, $"an incident with holes was taken for one: {line}");
            }
        }

        using var output = new StringWriter();
        IncidentsCommand.Show(new CommandEnvironment { Out = output, Error = output, Colors = dice.Chance(0.5), Width = 80 }, State, IncidentReader.Read(State, null).Incidents);
        File.Delete(Path.Combine(State, IncidentReader.FileName));
        File.Delete(Path.Combine(State, IncidentReader.RotatedFileName));
    }
}
