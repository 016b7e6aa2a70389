using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.Values;
using Spectre.Console;
using Command = System.CommandLine.Command;

namespace Sidecar.Agent.Commands;

/// <summary><c>replay</c>: runs the core over the observations that an incident keeps, and says whether it would decide the same.</summary>
internal static class ReplayCommand
{
    internal const string Same = "same decision";

    /// <summary>An incident has some 20 KB; a file that is larger than this is something else.</summary>
    private const int LargestFile = 1024 * 1024;

    /// <summary>Incidents that are named where an id is not enough.</summary>
    private const int MostNamed = 20;

    public static Command Create(CommandEnvironment environment, Option<string?> config, Option<bool> json)
    {
        var id = new Argument<string?>("ID")
        {
            Description = "Id of the incident, or how it begins; the newest one without it.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        var file = new Option<string?>("--file")
        {
            Description = "Read the incident from this file instead: a line of incidents.jsonl, or what replay --json has printed.",
            HelpName = "FILE",
        };
        var all = new Option<bool>("--all") { Description = "All incidents that are kept, a line for each." };
        var command = new Command("replay", "Run the core over the observations that an incident keeps: what was seen, the odds, the verdict and what each guardrail said, step by step. Ends with \"same decision\" or with the first difference. Exit code 1: there is one; 2: there is no such incident, or no recording in it.") { id, file, all, json, config };
        command.Validators.Add(result =>
        {
            bool[] given = [result.GetResult(id) is { Tokens.Count: > 0 }, result.GetResult(file) is not null, result.GetResult(all) is not null];
            if (given.Count(isGiven => isGiven) > 1)
            {
                result.AddError("an ID, --file and --all exclude one another");
            }
        });
        command.SetAction(parsed => Execute(environment, parsed.GetValue(config), parsed.GetValue(id), parsed.GetValue(file), parsed.GetValue(all), parsed.GetValue(json)));
        return command;
    }

    internal static int Execute(CommandEnvironment environment, string? configurationPath, string? id, string? file, bool all, bool json)
    {
        try
        {
            if (file is not null)
            {
                return Run(environment, ReadFile(file), json);
            }

            return !ConfigurationSource.TryLoad(environment, configurationPath, out var configuration) ? ExitCodes.BadConfiguration
                : all ? RunAll(environment, configuration.Agent.StateDirectory, json)
                : Run(environment, Find(configuration.Agent.StateDirectory, id), json);
        }
        catch (UnauthorizedAccessException e)
        {
            environment.Error.WriteLine(Printable.Escape($"not permitted: {e.Message}"));
            return ExitCodes.Unreachable;
        }
        catch (IOException e)
        {
            environment.Error.WriteLine(Printable.Escape($"cannot be read: {e.Message}"));
            return ExitCodes.Usage;
        }
    }

    private static int Run(CommandEnvironment environment, in RecordedIncident read, bool json)
    {
        if (read.Incident is not { Recording: { } recording } incident)
        {
            foreach (var line in read.Problem!.Split('\n'))
            {
                environment.Error.WriteLine(Printable.Escape(line));
            }

            return ExitCodes.Usage;
        }

        var result = Replay.Run(incident, recording);
        if (json)
        {
            environment.Out.WriteLine(ReplayDocument.Of(incident, result));
        }
        else
        {
            Show(environment, incident, recording, result);
        }

        return result.Difference is null ? ExitCodes.Ok : ExitCodes.Failure;
    }

    private static int RunAll(CommandEnvironment environment, string directory, bool json)
    {
        var recorded = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        var differs = false;
        var incidents = IncidentReader.Read(directory, null, recorded).Incidents;
        var oldest = Oldest(recorded);
        foreach (var latest in incidents)
        {
            var read = Recorded(latest, recorded, oldest);
            string said;
            if (read.Incident is { Recording: { } recording } incident)
            {
                var result = Replay.Run(incident, recording);
                differs |= result.Difference is not null;
                said = Said(result);
                if (json)
                {
                    environment.Out.WriteLine(ReplayDocument.Of(incident, result));
                }
            }
            else
            {
                said = read.Problem!;
            }

            if (!json)
            {
                environment.Out.WriteLine(Printable.Escape($"{latest.Id}  {said}"));
            }
        }

        return differs ? ExitCodes.Failure : ExitCodes.Ok;
    }

    private static RecordedIncident ReadFile(string file)
    {
        using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        var contents = new byte[LargestFile + 1]; // what a pipe or a device says of its length is nothing to go by
        var length = stream.ReadAtLeast(contents, contents.Length, throwOnEndOfStream: false);
        return length > LargestFile
            ? new(null, $"{Printable.Quote(file)} has more than {LargestFile / 1024} KB: this is no incident")
            : RecordingJson.Read(contents.AsMemory(0, length));
    }

    private static RecordedIncident Find(string directory, string? id)
    {
        var recorded = new Dictionary<string, byte[]>(StringComparer.Ordinal);
        var incidents = IncidentReader.Read(directory, null, recorded).Incidents;
        var found = id is null ? incidents.TakeLast(1).ToList()
            : incidents.Where(incident => incident.Id == id).ToList() is { Count: > 0 } exact ? exact
            : incidents.Where(incident => incident.Id.StartsWith(id, StringComparison.Ordinal)).ToList();
        if (found.Count != 1)
        {
            return new(null, found.Count == 0
                ? id is null ? $"no incidents in {directory}" : $"no incident {Printable.Quote(id)} in {directory}; conn-sidecar incidents --json has their ids"
                : string.Join('\n', [$"{Quantity.Of(found.Count, "incident begins", "incidents begin")} with {Printable.Quote(id!)}:", .. found.TakeLast(MostNamed).Select(incident => $"  {incident.Id}  {What(incident)}")]));
        }

        return Recorded(found[0], recorded, Oldest(recorded));
    }

    /// <summary>The id of the oldest incident whose recording is kept, or null: none is.</summary>
    private static string? Oldest(Dictionary<string, byte[]> recorded) => recorded.Keys.Min(StringComparer.Ordinal);

    private static RecordedIncident Recorded(Incident latest, Dictionary<string, byte[]> recorded, string? oldest)
    {
        if (!recorded.TryGetValue(latest.Id, out var line))
        {
            // A recording stands in the first line of its incident, which may have been in a file that was removed since.
            return new(null, string.CompareOrdinal(latest.Id, oldest) < 0
                ? $"the recording of incident {latest.Id} is no longer kept"
                : $"incident {latest.Id} has no recording");
        }

        // The line with the recording may be an earlier state of the incident.
        var read = RecordingJson.Read(line);
        return read.Incident?.Recording is { } recording ? new(latest with { Recording = recording }, null) : read;
    }

    private static void Show(CommandEnvironment environment, Incident incident, Recording recording, ReplayResult result)
    {
        var console = environment.CreateConsole();
        console.WriteIndented(0, $"incident {incident.Id}", new Style(decoration: Decoration.Bold));
        console.WriteIndented(4, What(incident), Style.Plain);
        console.WriteIndented(4, $"{incident.Local} -> {incident.Peer}", Style.Plain);
        var leftOut = recording.LeftOut == 0 ? "" : string.Create(CultureInfo.InvariantCulture, $", {recording.LeftOut} earlier ones not kept");
        console.WriteIndented(4, string.Create(CultureInfo.InvariantCulture,
            $"recorded by {recording.Agent ?? "an unknown version"}, replayed by {ProductVersion.Text}; {Quantity.Of(recording.Steps.Count, "step")}{leftOut}"), Style.Plain);
        foreach (var step in result.Steps)
        {
            console.WriteIndented(0, string.Create(CultureInfo.InvariantCulture, $"{"+" + step.At.TotalSeconds.ToString("0.000", CultureInfo.InvariantCulture) + " s",11}  {step.What}"), Style.Plain);
            if (step.Replayed is { } judged)
            {
                console.WriteIndented(13, $"{judged.Verdict.ToName()}{(judged.Odds == 0 ? "" : $", odds {Replay.Odds(judged.Odds)}")}", ColorOf(judged.Verdict));
            }

            if (step.ReplayedDecision is { } decision)
            {
                console.WriteIndented(13, Replay.Text(decision), new Style(decoration: Decoration.Bold));
            }

            if (step.Guardrails.Count > 0)
            {
                var withholding = step.Guardrails.Where(answer => answer.Withholds).Select(answer => answer.Guardrail.ToName()).ToList();
                console.WriteIndented(13, $"guardrails that withhold: {(withholding.Count == 0 ? "none" : string.Join(", ", withholding))}", Style.Plain);
                console.WriteIndented(13, $"that let it pass: {string.Join(", ", step.Guardrails.Where(answer => !answer.Withholds).Select(answer => answer.Guardrail.ToName()))}", Style.Plain);
            }
        }

        console.WriteIndented(0, Said(result), new Style(result.Difference is null ? Color.Green : Color.Red, decoration: Decoration.Bold));
    }

    private static string Said(ReplayResult result) =>
        result.Difference is { } difference ? $"first difference {difference}" : $"{Same}: {Replay.Text(result.Decision!.Value)}";

    private static Style ColorOf(Verdict verdict) => verdict switch
    {
        Verdict.Stuck or Verdict.Outage => new Style(Color.Red),
        Verdict.Suspect or Verdict.Partly or Verdict.BlackHole or Verdict.Expired => new Style(Color.Yellow),
        _ => Style.Plain,
    };

    private static string What(Incident incident) => string.Create(CultureInfo.InvariantCulture,
        $"{Moment.ForPeople(incident.Time)}  {incident.Upstream}  {incident.Cause}: {incident.Remedy} {incident.Outcome}{(incident.WithheldBy is { } by ? $" ({by})" : "")}");
}

/// <summary>A replay for programs; the incident with its recording is part of it, so that it can be sent to somebody else.</summary>
internal static class ReplayDocument
{
    internal static string Of(Incident incident, ReplayResult result)
    {
        using var stream = new MemoryStream();
        using (var writer = new Utf8JsonWriter(stream))
        {
            writer.WriteStartObject();
            writer.WriteString("result", result.Difference is null ? "same" : "different");
            writer.WriteString("difference", result.Difference);
            writer.WriteString("agent", ProductVersion.Text);
            writer.WriteStartArray("steps");
            foreach (var step in result.Steps)
            {
                Write(writer, step);
            }

            writer.WriteEndArray();
            writer.WritePropertyName("incident");
            writer.WriteRawValue(IncidentJson.Line(incident).AsSpan().TrimEnd((byte)'\n'));
            writer.WriteEndObject();
        }

        return Encoding.UTF8.GetString(stream.GetBuffer(), 0, (int)stream.Length);
    }

    private static void Write(Utf8JsonWriter writer, ReplayedStep step)
    {
        writer.WriteStartObject();
        writer.WriteNumber("at_seconds", Math.Round(step.At.TotalSeconds, 6));
        writer.WriteString("what", step.What);
        Write(writer, "recorded", step.Recorded);
        Write(writer, "replayed", step.Replayed);
        Write(writer, "recorded_decision", step.RecordedDecision);
        Write(writer, "replayed_decision", step.ReplayedDecision);
        if (step.Guardrails.Count > 0)
        {
            writer.WriteStartObject("guardrails");
            foreach (var answer in step.Guardrails)
            {
                writer.WriteString(answer.Guardrail.ToName(), answer.Withholds ? "withholds" : "passes");
            }

            writer.WriteEndObject();
        }

        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, string name, RecordedJudgement? judged)
    {
        if (judged is not null)
        {
            writer.WriteStartObject(name);
            writer.WriteString("verdict", judged.Verdict.ToName());
            writer.WriteString("reason", judged.Reason.ToString());
            writer.WriteNumber("odds", double.IsFinite(judged.Odds) ? judged.Odds : -1); // numbers that make no sense come to odds that make none
            writer.WriteEndObject();
        }
    }

    private static void Write(Utf8JsonWriter writer, string name, Decision? decision)
    {
        if (decision is { } made)
        {
            writer.WriteStartObject(name);
            writer.WriteString("remedy", made.Remedy.ToName());
            writer.WriteString("withheld_by", made.WithheldBy?.ToName());
            writer.WriteEndObject();
        }
    }
}
