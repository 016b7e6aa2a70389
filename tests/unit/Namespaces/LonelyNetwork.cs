using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;

namespace Sidecar.UnitTests.Namespaces;

/// <summary>A network namespace with nothing but loopback, kept by a child process and gone with it.</summary>
internal sealed class LonelyNetwork : IDisposable
{
    private readonly Process _child;

    internal LonelyNetwork()
    {
        Sidecar.UnitTests.Root.Needed("a network namespace cannot be made without CAP_SYS_ADMIN");
        _child = Process.Start(new ProcessStartInfo("unshare", ["--net", "sh", "-ec", "ip link set lo up; echo ready; exec sleep 600"])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
        })!;
        _child.StandardOutput.ReadLine().ShouldBe("ready");
        var processes = new ProcessReader();
        Inside = NetworkNamespace.Open(processes.ReadNetworkNamespace(_child.Id), processes.NetworkNamespacePath(_child.Id));
    }

    internal NetworkNamespace Inside { get; }

    /// <summary>Both ends of a new connection over this loopback.</summary>
    internal (Socket Client, Socket Server) Connect()
    {
        using var listener = Inside.CreateTcpSocket(AddressFamily.InterNetwork);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        var client = Inside.CreateTcpSocket(AddressFamily.InterNetwork);
        client.NoDelay = true;
        client.Connect(listener.LocalEndPoint!);
        return (client, listener.Accept());
    }

    /// <summary>From now on every packet over loopback is dropped without a word.</summary>
    internal void Silence() => Run("nft", "add table ip silence; add chain ip silence everything { type filter hook input priority 0; policy drop; }");

    /// <summary>Runs a program inside and waits for it.</summary>
    internal void Run(params string[] command)
    {
        using var process = Process.Start(new ProcessStartInfo("nsenter", ["--net", "--target", _child.Id.ToString(), .. command]) { UseShellExecute = false })!;
        process.WaitForExit();
        process.ExitCode.ShouldBe(0, string.Join(' ', command));
    }

    public void Dispose()
    {
        Inside.Dispose();
        _child.Kill();
        _child.WaitForExit();
        _child.Dispose();
    }
}
