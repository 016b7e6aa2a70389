using System.Globalization;
using System.Net.Sockets;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Rehearsals;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Sockets;

namespace Sidecar.Agent.Doctor;

/// <summary>
/// What this host lets the agent do. <see cref="Quick"/> takes milliseconds and is made at every start;
/// <see cref="Thorough"/> does each thing to a socket or a process of its own.
/// </summary>
internal sealed class HostChecks(SidecarConfiguration configuration)
{
    private readonly bool _wantsRecycle = configuration.Upstreams.Any(upstream => upstream.Recycle);
    private readonly bool _wantsTerminate = configuration.Workers.Any(workers => workers.Terminate);
    private readonly bool _wantsKeepalive = configuration.Upstreams.Any(upstream => upstream.Keepalive);

    /// <summary>A socket of its own is closed, and capabilities are looked up.</summary>
    public IReadOnlyList<Finding> Quick()
    {
        var capabilities = CapabilitySet.ReadOwn();
        var findings = new List<Finding> { Destroy() with { IsForActing = true } };

        void Need(Capability capability, bool needed, string follows, bool forActing = false) => findings.Add(capabilities.Has(capability)
            ? new Finding(CapabilitySet.NameOf(capability), FindingState.Works, needed, "effective")
            : new Finding(CapabilitySet.NameOf(capability), FindingState.DoesNot, needed, $"{CapabilitySet.NameOf(capability)} is missing: {follows}") { IsForActing = forActing });

        Need(Capability.SysPtrace, _wantsKeepalive || _wantsTerminate,
            "owners of other users' connections are not known; no keepalive can be set, no worker of another user terminated");
        Need(Capability.DacReadSearch, _wantsKeepalive || _wantsTerminate,
            "descriptors of other users' processes cannot be listed, so owners are not known");
        Need(Capability.Kill, _wantsTerminate, "hung workers of other users cannot be terminated", forActing: true);
        findings.Add(Resume() with { IsForActing = true });
        return findings;
    }

    /// <summary>Everything else: the kernel, a child of its own, directories, systemd.</summary>
    /// <param name="program">Program that becomes the child.</param>
    /// <param name="arguments">Its arguments.</param>
    public IReadOnlyList<Finding> Thorough(string program, IReadOnlyList<string> arguments) =>
    [
        Kernel(),
        .. Child(ChildRehearsal.Run(program, arguments)),
        Yama(),
        HostFacts.CanOpenRawSocket(out var detail)
            ? new Finding("raw socket", FindingState.Works, false, "opened one")
            : new Finding("raw socket", FindingState.DoesNot, false, $"{detail} (CAP_NET_RAW): paths are not probed with single segments"),
        Systemd(),
        Directory("state directory", configuration.Agent.StateDirectory, "incidents and the keepalive options that were set are not remembered"),
        Directory("runtime directory", configuration.Agent.RuntimeDirectory, "status cannot ask the agent"),
    ];

    private Finding Destroy()
    {
        const string layer = "recycle (SOCK_DESTROY)";
        return DestroyRehearsal.Run(out var detail) switch
        {
            DestroyResult.Destroyed => new Finding(layer, FindingState.Works, _wantsRecycle, "closed a connection of its own"),
            DestroyResult.NotPermitted => new Finding(layer, FindingState.DoesNot, _wantsRecycle,
                "CAP_NET_ADMIN is missing: dead connections cannot be closed (recycle)"),
            DestroyResult.NotSupported => new Finding(layer, FindingState.DoesNot, _wantsRecycle,
                "this kernel was built without CONFIG_INET_DIAG_DESTROY: dead connections cannot be closed (recycle)"),
            _ => new Finding(layer, FindingState.DoesNot, _wantsRecycle,
                $"closing a socket of the agent's own failed ({detail}): dead connections may not be closed (recycle)"),
        };
    }

    private static Finding Resume() => ResumeStalled.IsPermitted(out var detail)
        ? new Finding("resume (RFC 6069)", FindingState.Works, false, "opened a packet socket and a raw one")
        : new Finding("resume (RFC 6069)", FindingState.DoesNot, false,
            $"packet and raw sockets cannot be had ({detail}; CAP_NET_RAW, RestrictAddressFamilies): after an outage live connections go on when the kernel's own timer says so, up to two minutes later");

    private static Finding Kernel()
    {
        var bytes = HostFacts.SeeOwnSocket(out var detail);
        var release = HostFacts.KernelRelease ?? "of unknown release";
        return bytes > 0
            ? new Finding("kernel (sock_diag)", FindingState.Works, true, string.Create(CultureInfo.InvariantCulture, $"Linux {release}; saw a connection of its own, with {bytes} bytes of TCP_INFO"))
            : new Finding("kernel (sock_diag)", FindingState.DoesNot, true, $"Linux {release}; {detail}: nothing can be watched");
    }

    private IEnumerable<Finding> Child(ChildRehearsalResult child)
    {
        const string owners = "owners (/proc/PID/fd)";
        const string keepalive = "keepalive (pidfd_getfd)";
        const string signals = "terminate (pidfd_send_signal)";
        const string namespaces = "other network namespaces (setns)";
        if (child is { Problem: { } problem, Descriptors: null })
        {
            foreach (var (layer, needed) in new[] { (owners, _wantsKeepalive || _wantsTerminate), (keepalive, _wantsKeepalive), (signals, _wantsTerminate), (namespaces, false) })
            {
                yield return new Finding(layer, FindingState.NotTried, needed, $"no child process could be made to try it: {problem}");
            }

            yield break;
        }

        var whose = child.IsOtherUser ? "a child of its own that runs as another user" : "a child of its own that shut itself off";
        yield return child.Descriptors == true
            ? new Finding(owners, FindingState.Works, _wantsKeepalive || _wantsTerminate, $"found the socket of {whose}")
            : new Finding(owners, FindingState.DoesNot, _wantsKeepalive || _wantsTerminate,
                $"the descriptors of {whose} cannot be read (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE): owners are not known");
        yield return child.Keepalive switch
        {
            TouchResult.Done => new Finding(keepalive, FindingState.Works, _wantsKeepalive, $"set keepalive on the socket of {whose}"),
            TouchResult.NotPermitted => new Finding(keepalive, FindingState.DoesNot, _wantsKeepalive,
                $"the socket of {whose} cannot be had (CAP_SYS_PTRACE, Yama or a security module): no keepalive can be set"),
            TouchResult.NotSupported => new Finding(keepalive, FindingState.DoesNot, _wantsKeepalive, "this kernel is older than 5.6: no keepalive can be set"),
            null => new Finding(keepalive, FindingState.NotTried, _wantsKeepalive, child.Problem ?? "not tried"),
            var other => new Finding(keepalive, FindingState.DoesNot, _wantsKeepalive, $"setting keepalive on the socket of {whose} failed ({other})"),
        };
        yield return child switch
        {
            { Signal: HandleFailure.None, Terminated: true, IsOtherUser: true } => new Finding(signals, FindingState.Works, _wantsTerminate, $"ended {whose}"),
            { Signal: HandleFailure.None, Terminated: true } => CapabilitySet.ReadOwn().Has(Capability.Kill)
                ? new Finding(signals, FindingState.Works, _wantsTerminate, $"ended {whose}; CAP_KILL is effective for other users' workers")
                : new Finding(signals, FindingState.DoesNot, _wantsTerminate, $"ended {whose}; without CAP_KILL workers of other users cannot be terminated"),
            { Signal: null } => new Finding(signals, FindingState.NotTried, _wantsTerminate, child.Problem ?? "not tried"),
            { Signal: HandleFailure.NotPermitted } => new Finding(signals, FindingState.DoesNot, _wantsTerminate,
                $"{whose} cannot be signalled (CAP_KILL): hung workers of other users cannot be terminated"),
            _ => new Finding(signals, FindingState.DoesNot, _wantsTerminate, $"{whose} did not end on SIGTERM ({child.Signal})"),
        };
        yield return child.Namespace switch
        {
            true => new Finding(namespaces, FindingState.Works, false, "entered a namespace of its own"),
            _ when !configuration.Agent.AllNetworkNamespaces => new Finding(namespaces, FindingState.NotTried, false, "not asked for (network-namespaces = own)"),
            _ when !AreOthersUsed() => new Finding(namespaces, FindingState.NotTried, false, "no process with TCP sockets lives in another network namespace"),
            false => new Finding(namespaces, FindingState.DoesNot, false, $"{child.NamespaceDetail}: connections in containers are not seen"),
            null => new Finding(namespaces, FindingState.DoesNot, false, $"{child.NamespaceDetail}: connections in containers may not be seen"),
        };
    }

    /// <summary>Whether there is anything to see in other network namespaces.</summary>
    private static bool AreOthersUsed()
    {
        var processes = new ProcessReader();
        var own = processes.ReadNetworkNamespace(Environment.ProcessId);
        return processes.ReadPids().Select(pid => (Pid: pid, Inode: processes.ReadNetworkNamespace(pid))).Where(process => process.Inode != 0 && process.Inode != own)
            .DistinctBy(process => process.Inode).Any(process => processes.HasTcpSockets(process.Pid));
    }

    private static Finding Yama() => HostFacts.YamaScope switch
    {
        null => new Finding("Yama", FindingState.Works, false, "not on this kernel"),
        0 => new Finding("Yama", FindingState.Works, false, "kernel.yama.ptrace_scope = 0"),
        3 => new Finding("Yama", FindingState.DoesNot, false, "kernel.yama.ptrace_scope = 3: no process can have another one's sockets until the next boot, whatever its capabilities"),
        var scope => new Finding("Yama", FindingState.Works, false,
            string.Create(CultureInfo.InvariantCulture, $"kernel.yama.ptrace_scope = {scope}: CAP_SYS_PTRACE is needed for other processes' sockets")),
    };

    private static Finding Systemd()
    {
        if (!System.IO.Directory.Exists("/run/systemd/system"))
        {
            return new Finding("systemd, journal", FindingState.DoesNot, false, "systemd does not run this host: no watchdog, and the log goes to standard error");
        }

        const string journal = "/run/systemd/journal/socket";
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
            socket.Connect(new UnixDomainSocketEndPoint(journal));
            return new Finding("systemd, journal", FindingState.Works, false, "systemd runs this host; connected to the journal's socket");
        }
        catch (SocketException e)
        {
            return new Finding("systemd, journal", FindingState.DoesNot, false, $"systemd runs this host; {UnixSocketError.Describe(journal, e)}");
        }
    }

    private static Finding Directory(string layer, string path, string follows)
    {
        if (!System.IO.Directory.Exists(path))
        {
            return new Finding(layer, FindingState.NotTried, false, $"{path} is not there; it is made at the start, by systemd or by the agent");
        }

        try
        {
            var file = Path.Combine(path, $".doctor-{Environment.ProcessId}");
            using (File.Create(file, 1, FileOptions.DeleteOnClose))
            {
                return new Finding(layer, FindingState.Works, false, $"made and removed a file in {path}");
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return new Finding(layer, FindingState.DoesNot, false, $"{e.Message}: {follows}");
        }
    }
}
