using Sidecar.Agent.Audit.Model;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>All findings about a stack, the worst first, each once. Pure.</summary>
internal static class Auditor
{
    public static IReadOnlyList<AuditFinding> Examine(AuditedStack stack, HopGraph graph, IReadOnlyList<Chain> chains, LimitPlan plan) =>
    [
        .. ChainFindings.For(stack, chains, plan)
            .Concat(QueueFindings.For(stack))
            .Concat(HaproxyFindings.For(stack, graph, plan))
            .Concat(HostFindings.For(stack))
            .DistinctBy(finding => (finding.Id, finding.Place, finding.What))
            .OrderBy(finding => finding.Severity),
    ];
}
