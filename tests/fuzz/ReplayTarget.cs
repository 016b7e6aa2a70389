using System.Text;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry;
using Sidecar.CoreTests.Remedies;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>Incidents with their recordings as somebody else has sent them, through the command that replays them.</summary>
internal sealed class ReplayTarget : StateFileTarget
{
    /// <summary>One of each kind that two hung workers lead to: closed, terminated, and withheld.</summary>
    private static readonly string[] Good = [.. Lines()];

    internal override void Try(Dice dice)
    {
        var file = Path.Combine(State, "incident.json");
        File.WriteAllBytes(file, Hostile(dice, dice.Pick(Good)));
        using var output = new StringWriter();
        using var error = new StringWriter();
        var environment = new CommandEnvironment { Out = output, Error = error, Colors = false, Width = 80 };
        var code = ReplayCommand.Execute(environment, null, null, file, all: false, json: dice.Chance(0.5));
        Hold(code is ExitCodes.Ok or ExitCodes.Failure or ExitCodes.Usage, $"exit code {code}");
        Hold(code == ExitCodes.Usage ? output.ToString().Length == 0 && error.ToString().TrimEnd('\n') is { Length: > 0 } line && !line.Contains('\n', StringComparison.Ordinal) : error.ToString().Length == 0,
            $"not one clear error: {error}");
        Hold(output.ToString().All(c => c == '\n' || !char.IsControl(c)), "control characters are shown");
    }

    private static IEnumerable<string> Lines()
    {
        foreach (var recycle in new[] { true, false })
        {
            var bench = new Bench(with: section => section with { Recycle = recycle });
            bench.Hands.Worker = new WorkerState(true, 7);
            var (first, second) = (bench.Open(), bench.Open());
            first.Send(bench.Now);
            bench.Forget(second, 15);
            foreach (var incident in bench.Hands.All<IncidentReport>().Where(report => report.Incident.Recording is not null).Select(report => report.Incident))
            {
                yield return Encoding.UTF8.GetString(IncidentJson.Line(incident));
            }
        }
    }
}
