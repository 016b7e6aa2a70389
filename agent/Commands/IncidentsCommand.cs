using System.Globalization;
using System.Text.Json;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.Values;
using Spectre.Console;

namespace Sidecar.Agent.Commands;

/// <summary><c>incidents</c>: what was done and what was withheld, from the state directory, with or without an agent.</summary>
internal static class IncidentsCommand
{
    public static int Execute(CommandEnvironment environment, string? configurationPath, bool json, int? last)
    {
        if (!ConfigurationSource.TryLoad(environment, configurationPath, out var configuration))
        {
            return ExitCodes.BadConfiguration;
        }

        var directory = configuration.Agent.StateDirectory;
        IncidentReadResult result;
        try
        {
            result = IncidentReader.Read(directory, last);
        }
        catch (UnauthorizedAccessException e)
        {
            environment.Error.WriteLine(Printable.Escape($"not permitted to read the incidents in {directory}: {e.Message}"));
            return ExitCodes.Unreachable;
        }
        catch (IOException e)
        {
            environment.Error.WriteLine(Printable.Escape($"cannot read the incidents in {directory}: {e.Message}"));
            return ExitCodes.Failure;
        }

        if (result.DamagedLines > 0)
        {
            environment.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{Quantity.Of(result.DamagedLines, "damaged line")} left out (torn by a crash, or edited)"));
        }

        if (json)
        {
            foreach (var incident in result.Incidents)
            {
                environment.Out.WriteLine(JsonSerializer.Serialize(incident, IncidentJson.Default.Incident));
            }
        }
        else
        {
            Show(environment, directory, result.Incidents);
        }

        return ExitCodes.Ok;
    }

    internal static void Show(CommandEnvironment environment, string directory, IReadOnlyList<Incident> incidents)
    {
        var console = environment.CreateConsole();
        if (incidents.Count == 0)
        {
            console.WriteIndented(0, $"no incidents in {directory}", Style.Plain);
            return;
        }

        foreach (var incident in incidents)
        {
            var color = incident.Outcome switch
            {
                "failed" or "refused" => Color.Red,
                "withheld" or "vanished" or "pending" or "interrupted" => Color.Yellow,
                _ => Color.Green,
            };
            var line = new Paragraph();
            line.Append($"{Moment.ForPeople(incident.Time)}  ");
            line.Append(Printable.Escape(incident.Upstream), new Style(decoration: Decoration.Bold));
            line.Append(Printable.Escape($"  {incident.Cause}: {incident.Remedy} "));
            line.Append(Printable.Escape(incident.Outcome), new Style(color, decoration: Decoration.Bold));
            if (incident.WithheldBy is { } guardrail)
            {
                line.Append(Printable.Escape($" ({guardrail})"));
            }

            line.Append("\n");
            console.Write(line);
            console.WriteIndented(4, Who(incident), Style.Plain);
            console.WriteIndented(4, incident.Why, Style.Plain);
            foreach (var link in incident.Chain)
            {
                console.WriteIndented(4, $"{Moment.OfDay(link.Time)} {link.What}", Style.Plain);
            }

            console.WriteIndented(4, $"id {incident.Id}", Style.Plain);
        }
    }

    private static string Who(Incident incident)
    {
        var parts = new List<string>
        {
            incident.Pid is { } pid
                ? string.Create(CultureInfo.InvariantCulture, $"{pid} {Path.GetFileName(incident.Executable) ?? "?"}")
                : "owner unknown",
        };
        if (incident.Local is { } local && incident.Peer is { } peer)
        {
            parts.Add($"{local} -> {peer}");
        }

        if (incident.ReleaseSeconds is { } release)
        {
            parts.Add($"released after {Duration.ForPeople(Seconds(release))}");
        }
        else if (incident.StuckSeconds is { } stuck)
        {
            parts.Add($"unanswered for {Duration.ForPeople(Seconds(stuck))}");
        }

        return string.Join("  ", parts);
    }

    /// <summary>The file may have been edited: no number in it makes this command fail.</summary>
    private static TimeSpan Seconds(double value) => TimeSpan.FromSeconds(double.IsNaN(value) ? 0 : Math.Clamp(value, 0, 1e9));
}
