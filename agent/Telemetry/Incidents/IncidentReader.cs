using System.Text.Json;
using Sidecar.Agent.Core.Remedies;

namespace Sidecar.Agent.Telemetry;

/// <summary>What a reader found.</summary>
/// <param name="Incidents">Oldest first, each id once, in its latest state.</param>
/// <param name="DamagedLines">Lines that are no incident: torn by a crash, or edited by hand.</param>
internal sealed record IncidentReadResult(IReadOnlyList<Incident> Incidents, int DamagedLines);

/// <summary>Reads the incidents of a state directory, while the agent writes or without an agent.</summary>
internal static class IncidentReader
{
    public const string FileName = "incidents.jsonl";
    public const string RotatedFileName = "incidents.jsonl.1";

    /// <summary>The last <paramref name="last"/> incidents (null: all that are kept).</summary>
    /// <exception cref="IOException">A file is there and cannot be read. Files that are not there are empty.</exception>
    /// <exception cref="UnauthorizedAccessException">Not permitted.</exception>
    public static IncidentReadResult Read(string directory, int? last) => Read(directory, last, null);

    /// <summary>The same, and the lines that have a recording, by the incident's id.</summary>
    /// <param name="directory">The state directory.</param>
    /// <param name="last">So many incidents; null: all that are kept.</param>
    /// <param name="recorded">Takes, for each id, the last line with a recording.</param>
    public static IncidentReadResult Read(string directory, int? last, Dictionary<string, byte[]>? recorded)
    {
        // The current file is opened first: when the agent rotates between the two, the same file is then read twice,
        // which merging by id undoes, where the other order would miss it.
        using var current = OpenIfThere(Path.Combine(directory, FileName));
        using var rotated = OpenIfThere(Path.Combine(directory, RotatedFileName));

        var latest = new Dictionary<string, Incident>(StringComparer.Ordinal);
        var order = new List<string>();
        var damaged = 0;
        foreach (var stream in new[] { rotated, current })
        {
            if (stream is not null)
            {
                damaged += ReadFile(stream, latest, order, recorded);
            }
        }

        var from = last is { } count ? Math.Max(0, order.Count - Math.Max(0, count)) : 0;
        return new IncidentReadResult([.. order.Skip(from).Select(id => latest[id])], damaged);
    }

    private static FileStream? OpenIfThere(string path)
    {
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, 64 * 1024);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    private static int ReadFile(FileStream stream, Dictionary<string, Incident> latest, List<string> order, Dictionary<string, byte[]>? recorded)
    {
        var damaged = 0;
        var contents = new byte[stream.Length];
        var rest = contents.AsSpan(0, stream.ReadAtLeast(contents, contents.Length, throwOnEndOfStream: false));
        while (rest.Length > 0)
        {
            var end = rest.IndexOf((byte)'\n');
            var line = end < 0 ? rest : rest[..end];
            rest = end < 0 ? default : rest[(end + 1)..];
            if (line.IsEmpty)
            {
                continue;
            }

            if (Parse(line) is not { } incident)
            {
                damaged++;
                continue;
            }

            if (recorded is not null && line.IndexOf(RecordingJson.Key) >= 0)
            {
                recorded[incident.Id] = line.ToArray();
            }

            if (!latest.TryAdd(incident.Id, incident))
            {
                latest[incident.Id] = incident;
            }
            else
            {
                order.Add(incident.Id);
            }
        }

        return damaged;
    }

    internal static Incident? Parse(ReadOnlySpan<byte> line)
    {
        try
        {
            if (JsonSerializer.Deserialize(line, IncidentJson.Default.Incident) is not { Id.Length: > 0 } incident)
            {
                return null;
            }

            // A line without evidence, or of a version that had no chain, is an incident all the same; generated code leaves null
            // where the key is missing.
            incident = incident with
            {
                Evidence = incident.Evidence ?? new Dictionary<string, string>(StringComparer.Ordinal),
                Chain = incident.Chain ?? [],
            };
            return incident.Evidence.Values.All(value => value is not null) && incident.Chain.All(link => link is not null) ? incident : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
