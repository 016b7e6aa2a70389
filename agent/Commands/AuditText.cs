using Sidecar.Agent.Audit;
using Sidecar.Agent.Audit.Findings;
using Sidecar.Agent.Audit.Model;
using Sidecar.Probes.Values;
using Spectre.Console;

namespace Sidecar.Agent.Commands;

/// <summary>The report for people: findings, the worst first, then the chains as pictures, then what was not read.</summary>
internal static class AuditText
{
    private const int MostChains = 12;
    private const int MostNotes = 20;
    private const int MostChanges = 60;

    public static void Write(IAnsiConsole console, AuditReport report)
    {
        foreach (var finding in report.Findings)
        {
            WriteFinding(console, finding);
        }

        // One finding may need further lines than its own: those that must leave room for them.
        if (report.Plan.Count > (report.Findings.Count == 1 ? report.Findings[0].Changes.Count : 1))
        {
            console.WriteIndented(0, "all changes together", new Style(decoration: Decoration.Bold));
            foreach (var change in report.Plan.Take(MostChanges))
            {
                WriteChange(console, 2, "", change);
            }

            if (report.Plan.Count > MostChanges)
            {
                console.WriteIndented(2, $"and {report.Plan.Count - MostChanges} more, all of them in --json", Style.Plain);
            }

            console.WriteLine();
        }

        foreach (var (chain, same) in Pictured(report).Take(MostChains))
        {
            console.WriteIndented(0, same == 0 ? "the way of a request" : $"the way of a request ({same} more like it)", new Style(decoration: Decoration.Bold));
            foreach (var line in Draw(chain))
            {
                console.Profile.Out.Writer.WriteLine(Printable.Escape(line)); // a picture is not wrapped
            }

            console.WriteIndented(2, chain.First is { } first
                ? $"after {Texts.Time(first.Limit.Value)} of silence {first.Hop.Program} ends it ({first.Limit.Setting}); the client sees: {chain.SeenByClient(first.Hop, first.Limit)}"
                : "nothing ends a silent request", Style.Plain);
            console.WriteLine();
        }

        foreach (var name in report.Stack.Names)
        {
            var alive = name.Addresses.Count(address => address.State == AddressState.Alive);
            console.WriteIndented(0, $"{name.Name}: {alive} of {Quantity.Of(name.Addresses.Count, "address answers", "addresses answer")}", new Style(decoration: Decoration.Bold));
            foreach (var address in name.Addresses)
            {
                console.WriteIndented(2, $"{address.Address}  {address.Connected} of {address.Attempts} attempts{(address.Detail is null ? "" : $" ({address.Detail})")}",
                    address.State == AddressState.Alive ? Style.Plain : new Style(Color.Red));
            }

            console.WriteLine();
        }

        foreach (var note in report.Notes.Take(MostNotes))
        {
            console.WriteIndented(0, $"not read: {note}", new Style(Color.Yellow));
        }

        if (report.Notes.Count > MostNotes)
        {
            console.WriteIndented(0, $"not read: {report.Notes.Count - MostNotes} more, all of them in --json", new Style(Color.Yellow));
        }

        console.WriteIndented(0, Sum(report), Style.Plain);
    }

    private static void WriteFinding(IAnsiConsole console, AuditFinding finding)
    {
        var (word, color) = finding.Severity switch
        {
            Severity.High => ("HIGH", Color.Red),
            Severity.Medium => ("MEDIUM", Color.Yellow),
            _ => ("low", Color.Default),
        };
        console.WriteIndented(0, $"{word}  {finding.Id}  {finding.Place}", new Style(color, decoration: Decoration.Bold));
        console.WriteIndented(2, finding.What, Style.Plain);
        console.WriteIndented(2, finding.Consequence, Style.Plain);
        for (var i = 0; i < finding.Changes.Count; i++)
        {
            WriteChange(console, 4, i == 0 ? "fix: " : "and: ", finding.Changes[i]);
        }

        console.WriteLine();
    }

    private static void WriteChange(IAnsiConsole console, int indent, string word, Change change) =>
        console.WriteIndented(indent, $"{word}{(!change.IsNew ? "at" : change.Place.Line > 0 ? "add below" : "add to")} {change.Place}: {change.Text}", new Style(Color.Green));

    /// <summary>Chains that differ in nothing that is drawn but their names are shown once.</summary>
    private static IEnumerable<(Chain Chain, int Same)> Pictured(AuditReport report) =>
        report.Chains.Where(chain => chain.Limits.Any())
            .GroupBy(chain => string.Join('|', chain.Limits.Select(pair => $"{pair.Hop.Program} {pair.Limit.Setting} {pair.Limit.Value} {pair.Limit.Place}")), StringComparer.Ordinal)
            .Select(group => (group.First(), group.Count() - 1));

    /// <summary>One line for each limit, in the order in which a request passes them, with bars as long as the times.</summary>
    internal static IEnumerable<string> Draw(Chain chain)
    {
        const int width = 16;
        var first = chain.First;
        var longest = chain.Limits.Where(pair => pair.Limit.Value is not null).Select(pair => pair.Limit.Value!.Value).DefaultIfEmpty(TimeSpan.FromSeconds(1)).Max();
        yield return "  client";
        foreach (var hop in chain.Hops)
        {
            var listens = hop.Listens.Select(listener => listener.Address.ToString()).Distinct(StringComparer.Ordinal).ToList();
            yield return $"   │ {(listens.Count == 0 ? "" : listens[0])}{(listens.Count > 1 ? $" and {listens.Count - 1} more" : "")}".TrimEnd();
            yield return $"  {hop.Title}{(hop.Slots is { } slots ? $", {Texts.Number(slots)} slots" : "")}";
            foreach (var limit in hop.Limits)
            {
                var length = limit.Value is { } value ? Math.Clamp((int)Math.Round(width * (value / longest)), 1, width) : width;
                var bar = limit.Value is null ? new string('─', width) + "→" : new string('─', length - 1) + "┤" + new string(' ', width - length);
                var isFirst = first is { } one && ReferenceEquals(one.Limit, limit);
                yield return $"   │   {bar,-17} {Texts.Setting(limit)}{(isFirst ? "  ← first" : "")}{(limit.Place is { Line: > 0 } place ? $"  {place}" : "")}";
            }
        }
    }

    private static string Sum(AuditReport report)
    {
        var files = Quantity.Of(report.Files.Count, "file");
        return report.Findings.Count switch
        {
            0 => $"No findings in {files}.",
            1 => $"1 finding in {files}.",
            var count => $"{count} findings in {files}, {report.Findings.Count(finding => finding.Severity == Severity.High)} of them high.",
        };
    }
}
