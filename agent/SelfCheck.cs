using Sidecar.Agent.Configuration;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent;

/// <summary>
/// What the agent can do on this host, found out at the start by doing it to a socket of its own.
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
        var capabilities = CapabilitySet.ReadOwn();
        var limitations = new List<string>();
        var notPossible = new List<string>();

        void Limit(bool wanted, string line)
        {
            limitations.Add(line);
            if (wanted && configuration.Agent.Mode == AgentMode.Protect)
            {
                notPossible.Add(line);
            }
        }

        var wantsRecycle = configuration.Upstreams.Any(upstream => upstream.Recycle);
        var wantsTerminate = configuration.Workers.Any(workers => workers.Terminate);
        var wantsKeepalive = configuration.Upstreams.Any(upstream => upstream.Keepalive);
        switch (DestroyRehearsal.Run(out var detail))
        {
            case DestroyResult.Destroyed:
                break;
            case DestroyResult.NotPermitted:
                Limit(wantsRecycle, "CAP_NET_ADMIN is missing: dead connections cannot be closed (recycle)");
                break;
            case DestroyResult.NotSupported:
                Limit(wantsRecycle, "this kernel was built without CONFIG_INET_DIAG_DESTROY: dead connections cannot be closed (recycle)");
                break;
            default:
                Limit(wantsRecycle, $"closing a socket of the agent's own failed ({detail}): dead connections may not be closed (recycle)");
                break;
        }

        if (!capabilities.Has(Capability.SysPtrace))
        {
            Limit(wantsKeepalive || wantsTerminate, "CAP_SYS_PTRACE is missing: owners of other users' connections are not known; no keepalive can be set, no worker of another user terminated");
        }

        if (!capabilities.Has(Capability.DacReadSearch))
        {
            Limit(wantsKeepalive || wantsTerminate, "CAP_DAC_READ_SEARCH is missing: descriptors of other users' processes cannot be listed, so owners are not known");
        }

        if (!capabilities.Has(Capability.Kill))
        {
            Limit(wantsTerminate, "CAP_KILL is missing: hung workers of other users cannot be terminated");
        }

        if (configuration.Agent.AllNetworkNamespaces && !capabilities.Has(Capability.SysAdmin))
        {
            Limit(false, "CAP_SYS_ADMIN is missing: other network namespaces (containers) are not looked into");
        }

        return new SelfCheck(limitations, notPossible);
    }
}
