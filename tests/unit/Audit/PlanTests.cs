using System.Text.RegularExpressions;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Audit;
using Xunit;

namespace Sidecar.UnitTests.Audit;

/// <summary>What an audit proposes is one set of values for the whole stack, and leaves nothing to propose.</summary>
public sealed partial class PlanTests
{
    /// <summary>Findings for which there may be no line that fixes them, where that is known beforehand.</summary>
    private static readonly string[] WithoutLine = ["no-work-limit", "haproxy-no-maxconn"];

    [Fact]
    public void Whatever_the_stack_is_what_is_proposed_leaves_no_finding()
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed => seen.UnionWith(Check(seed))).Check(Config.QuickThrowOnFailure.WithMaxTest(300));
        seen.Order(StringComparer.Ordinal).ShouldBe( // what is never found is never checked
        [
            "backlog-small", "chain-order", "haproxy-check-takes-workers", "haproxy-connect-timeout", "haproxy-no-allbackups", "haproxy-no-maxconn",
            "haproxy-oversubscribed", "haproxy-queue-timeout", "haproxy-timeout-missing", "keepalive-race", "limit-too-short", "no-work-limit", "somaxconn",
        ]);
    }

    /// <summary>Audits, does what is proposed, audits again. What was found at first.</summary>
    private static IEnumerable<string> Check(int seed)
    {
        var stack = GeneratedStack.Of(seed);
        var before = stack.Audit();
        before.Plan.GroupBy(change => (change.Place, Number().Replace(change.Text, "N"))).Where(line => line.Count() > 1)
            .ShouldBeEmpty($"one line has two values\n{Shown(before)}\n{stack}");
        before.Findings.SelectMany(finding => finding.Changes).Except(before.Plan).ShouldBeEmpty();

        var changed = stack.With(before.Plan);
        var after = changed.Audit();
        after.Plan.ShouldBeEmpty($"seed {seed}\n{Shown(after)}\nafter\n{Shown(before)}\n{stack}\nwas changed to\n{changed}");
        after.Findings.Select(finding => finding.Id).Except(before.Findings.Where(finding => finding.Changes.Count == 0).Select(finding => finding.Id), StringComparer.Ordinal).ShouldBeEmpty(Shown(after));
        after.Findings.ShouldAllBe(finding => WithoutLine.Contains(finding.Id, StringComparer.Ordinal));
        return before.Findings.Select(finding => finding.Id);
    }

    private static string Shown(AuditReport report) =>
        string.Join('\n', report.Findings.Select(finding => $"{finding.Id} {finding.Place}: {finding.What}: {string.Join(" and ", finding.Changes.Select(change => $"{change.Place} {change.IsNew} {change.Text}"))}"))
        + $"\nplan: {string.Join("; ", report.Plan.Select(change => $"{change.Place} {change.IsNew} {change.Text}"))}";

    [GeneratedRegex("[0-9]+(?=[^0-9]*$)")]
    private static partial Regex Number();
}
