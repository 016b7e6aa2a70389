using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Doctor;

namespace Sidecar.Agent.Service;

/// <summary>
/// What the agent cannot do on this host, found out at the start by the doctor's quick checks.
/// </summary>
internal sealed class SelfCheck
{
    private SelfCheck(IReadOnlyList<string> limitations, IReadOnlyList<string> notPossible)
    {
        Limitations = limitations;
        NotPossible = notPossible;
    }

    /// <summary>One line per thing that is not possible: what is missing and what follows from it.</summary>
    public IReadOnlyList<string> Limitations { get; }

    /// <summary>Those of them that concern a remedy the configuration asks for.</summary>
    public IReadOnlyList<string> NotPossible { get; }

    public static SelfCheck Run(SidecarConfiguration configuration)
    {
        var acts = configuration.Agent.Mode == AgentMode.Protect;
        var findings = new HostChecks(configuration).Quick();
        return new SelfCheck(
            [.. findings.Where(finding => finding.State != FindingState.Works && (acts || !finding.IsForActing)).Select(finding => finding.Detail)],
            [.. findings.Where(finding => finding.IsInTheWay && acts).Select(finding => finding.Detail)]);
    }
}
