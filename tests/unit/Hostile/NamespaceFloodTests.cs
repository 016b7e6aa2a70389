using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Processes;
using Sidecar.UnitTests.Namespaces;
using Xunit;

namespace Sidecar.UnitTests.Hostile;

/// <summary>Network namespaces by the dozen, of a user without rights.</summary>
public sealed class NamespaceFloodTests
{
    private static readonly CapabilitySet All = new(ulong.MaxValue);

    private readonly ProcessReader _processes = new();

    [Fact]
    public void A_namespace_without_sockets_is_not_entered_and_one_with_them_is()
    {
        using var network = new LonelyNetwork();
        using var table = new NamespaceTable(_processes, All);
        table.Refresh();
        table.Find(network.Inside.Inode).ShouldBeNull();
        table.Refused.ShouldBe(0);
        table.Problem.ShouldBeNull();

        using var listener = network.Inside.CreateTcpSocket(AddressFamily.InterNetwork);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        SpinWait.SpinUntil(() =>
        {
            table.Refresh();
            return table.Find(network.Inside.Inode) is not null;
        }, TimeSpan.FromSeconds(30)).ShouldBeTrue();
    }

    [Fact]
    public void A_process_that_was_seen_before_it_moved_into_its_namespace_is_found_there_at_the_next_refresh()
    {
        Root.Needed("a network namespace cannot be made without CAP_SYS_ADMIN");
        using var child = Process.Start(new ProcessStartInfo("python3", ["-c", "import ctypes, socket; input(); print(ctypes.CDLL(None).unshare(0x40000000), flush=True); s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print('moved', flush=True); input()"])
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        try
        {
            using var table = new NamespaceTable(_processes, All);
            table.Refresh();
            child.StandardInput.WriteLine();
            child.StandardOutput.ReadLine().ShouldBe("0");
            child.StandardOutput.ReadLine().ShouldBe("moved");
            table.Refresh();
            table.Find(_processes.ReadNetworkNamespace(child.Id)).ShouldNotBeNull();
        }
        finally
        {
            child.Kill();
        }
    }

    [Fact]
    public void Without_the_right_to_enter_nothing_is_tried_and_what_holds_sockets_is_told()
    {
        using var empty = new LonelyNetwork();
        using var network = new LonelyNetwork();
        var (client, server) = network.Connect();
        using (client)
        using (server)
        using (var table = new NamespaceTable(_processes, default(CapabilitySet)))
        {
            SpinWait.SpinUntil(() =>
            {
                table.Refresh();
                return table.Refused > 0;
            }, TimeSpan.FromSeconds(30)).ShouldBeTrue();
            table.Tries.ShouldBe(0);
            table.RefusedBecause.ShouldBe("setns: CAP_SYS_ADMIN is missing");
            table.Problem.ShouldNotBeNull().ShouldContain("containers.conf");
            table.Problem.ShouldContain("network-namespaces = own");
            table.Open.Count.ShouldBe(1);
        }
    }

    [Fact]
    public void A_refusal_is_not_repeated_at_every_refresh()
    {
        using var network = new LonelyNetwork();
        var (client, server) = network.Connect();
        using (client)
        using (server)
        {
            // The kernel refuses what the table believes it may do.
            CapabilityThread.Without(() =>
            {
                using var table = new NamespaceTable(_processes, All);
                SpinWait.SpinUntil(() =>
                {
                    table.Refresh();
                    return table.Refused > 0;
                }, TimeSpan.FromSeconds(30)).ShouldBeTrue();
                var tries = table.Tries;
                for (var i = 0; i < 20; i++)
                {
                    table.Refresh();
                }

                (table.Tries - tries).ShouldBeLessThan(20, "each costs a thread");
                return true;
            }, Capability.SysAdmin);
        }
    }

    [Fact]
    public void One_user_has_no_more_than_his_share_of_the_namespaces_that_are_watched()
    {
        const int Made = NamespaceTable.MostOfOneUser + 8;
        using var stranger = new Stranger("", $"""
            libc = ctypes.CDLL(None, use_errno=True)
            for i in range({Made}):
                go, done = os.pipe(), os.pipe()
                if os.fork() == 0:
                    if libc.unshare(0x50000000) != 0: os._exit(1)
                    s = socket.socket(); s.listen()
                    os.write(done[1], b'x')
                    time.sleep(600)
                assert os.read(done[0], 1) == b'x'
            """);
        using var table = new NamespaceTable(_processes, All);
        SpinWait.SpinUntil(() =>
        {
            table.Refresh();
            return table.LeftOut > 0;
        }, TimeSpan.FromSeconds(60)).ShouldBeTrue();
        table.LeftOut.ShouldBe(Made - NamespaceTable.MostOfOneUser);
    }
}
