using System.Globalization;
using Sidecar.Agent.Core.Remedies;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Folds incidents that record no action. Who lets thousands of his connections fall silent would push everybody else's incidents
/// out of the history: beyond a number a minute of one upstream, cause and owner, they are counted, and one incident tells of them.
/// What was done to a connection or a process is never folded.
/// </summary>
internal sealed class IncidentFold
{
    /// <summary>Incidents of one kind that are told one by one.</summary>
    internal const int MostAMinute = 30;

    private const int MostIds = 4096;

    private static readonly TimeSpan Window = TimeSpan.FromMinutes(1);

    private readonly Dictionary<(string Upstream, string Cause, string Owner), Kind> _kinds = [];
    private readonly HashSet<string> _folded = new(StringComparer.Ordinal);
    private readonly Queue<string> _order = new();

    /// <summary>Whether an incident is counted only.</summary>
    /// <param name="incident">As it is to be recorded.</param>
    /// <param name="isNew">It is recorded for the first time; what becomes of it is told like its beginning.</param>
    public bool Folds(Incident incident, bool isNew)
    {
        if (_folded.Contains(incident.Id))
        {
            return true;
        }

        if (!isNew || !(incident.WithheldBy is not null || incident.Remedy == "none"))
        {
            return false;
        }

        var key = (incident.Upstream, incident.Cause, incident.Unit ?? incident.Executable ?? "");
        if (!_kinds.TryGetValue(key, out var kind))
        {
            _kinds[key] = kind = new Kind { Began = incident.Time };
        }

        if (++kind.Count <= MostAMinute)
        {
            return false;
        }

        kind.First ??= incident;
        if (_folded.Add(incident.Id))
        {
            _order.Enqueue(incident.Id);
            if (_order.Count > MostIds)
            {
                _folded.Remove(_order.Dequeue());
            }
        }

        return true;
    }

    /// <summary>One incident for each kind whose minute is over and of which some were folded.</summary>
    public IReadOnlyList<Incident> TakeDue(DateTimeOffset now)
    {
        List<Incident>? due = null;
        foreach (var (key, kind) in _kinds.Where(pair => now - pair.Value.Began >= Window || now < pair.Value.Began).ToList())
        {
            _kinds.Remove(key);
            if (kind.First is { } first)
            {
                var count = kind.Count - MostAMinute;
                (due ??= []).Add(first with
                {
                    Local = null,
                    Pid = null,
                    Why = string.Create(CultureInfo.InvariantCulture, $"{count} further incidents like this within a minute are not recorded one by one; the first of them: {first.Why}"),
                    Evidence = new Dictionary<string, string>(first.Evidence, StringComparer.Ordinal) { ["folded"] = count.ToString(CultureInfo.InvariantCulture) },
                });
            }
        }

        return due ?? (IReadOnlyList<Incident>)[];
    }

    private sealed class Kind
    {
        public required DateTimeOffset Began { get; init; }

        public int Count { get; set; }

        /// <summary>The first that was folded.</summary>
        public Incident? First { get; set; }
    }
}
