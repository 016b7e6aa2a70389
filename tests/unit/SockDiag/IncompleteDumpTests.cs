using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Shouldly;
using Sidecar.Agent.Action;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.CoreTests.Tracking;
using Sidecar.Fuzz;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.SockDiag;

/// <summary>What is concluded from a dump of which a part was not told; the test is at the kernel's end of the socket.</summary>
public sealed partial class IncompleteDumpTests : IDisposable
{
    private const ulong Cookie = 42;
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(10);

    private readonly KernelHandle _kernel;
    private readonly NetworkNamespace _network;
    private readonly Loopback _held = new();
    private readonly ProcessReader _processes = new();
    private uint _sequence;

    public IncompleteDumpTests()
    {
        var pair = new int[2];
        SocketPair(1, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC, 0, pair).ShouldBe(0);
        _kernel = new KernelHandle(pair[0]);
        _network = new NetworkNamespace(7, null, new SockDiagClient(new KernelHandle(pair[1])));
    }

    public void Dispose()
    {
        _held.Dispose();
        _network.Dispose();
        _kernel.Dispose();
    }

    [Theory]
    [InlineData(false, 0, true)]
    [InlineData(true, 0, false)]
    [InlineData(false, 1, false)]
    [InlineData(true, 1, false)]
    public void A_dump_is_complete_only_if_all_of_it_was_told_and_read(bool interrupted, int malformed, bool complete)
    {
        Answer(sees: true, interrupted, malformed);
        var result = _network.Diagnostics.Dump(0xfff, [], withInfo: true, (in SocketObservation _) => { });
        (result.Sockets, result.Interrupted, result.Malformed, result.IsComplete).ShouldBe((1, interrupted, malformed, complete));
    }

    [Theory]
    [InlineData(false, 0)]
    [InlineData(true, 0)]
    [InlineData(false, 1)]
    public void Without_movement_only_a_complete_dump_shows_that_a_process_rests(bool interrupted, int malformed)
    {
        Answer(sees: false, interrupted, malformed);
        bool? expected = interrupted || malformed > 0 ? null : false;
        ProgressProbe.MovedSince(Silence, Environment.ProcessId, 0, _network, _processes).ShouldBe(expected);
    }

    [Theory]
    [InlineData(false, 0)]
    [InlineData(true, 0)]
    [InlineData(false, 1)]
    public void Movement_that_was_seen_counts_whatever_was_missed(bool interrupted, int malformed)
    {
        Answer(sees: true, interrupted, malformed);
        ProgressProbe.MovedSince(Silence, Environment.ProcessId, 0, _network, _processes).ShouldBe(true);
    }

    [Theory]
    [InlineData(true, 0)]
    [InlineData(false, 1)]
    public void A_connection_is_never_gone_by_dumps_that_are_not_complete(bool interrupted, int malformed)
    {
        var world = new World(
            new SidecarConfiguration { Agent = new AgentSection { AllNetworkNamespaces = false }, Upstreams = [TestUpstream.Of("10.2.0.2:5432").Section], Workers = [], Files = [] }, 1, 1, _ => false);
        Answer(sees: true);
        Scan(world).ShouldBeEmpty();
        world.Connections.All.Count.ShouldBe(1);
        for (var scans = 0; scans < 5; scans++)
        {
            Answer(sees: false, interrupted, malformed);
            Scan(world).ShouldBeEmpty();
        }

        // Absence has to repeat in two that are.
        Answer(sees: false);
        Scan(world).ShouldBeEmpty();
        Answer(sees: false);
        Scan(world).Count.ShouldBe(1);
    }

    private IReadOnlyList<TrackedConnection> Scan(World world)
    {
        world.BeginTick(full: true, DateTimeOffset.UnixEpoch);
        KernelEyes.Scan(world, _network, SocketFilter.Compile([.. world.Upstreams.SelectMany(upstream => upstream.Conditions)]), TimeSpan.FromSeconds(1000), out _);
        world.EndScan();
        return [.. world.Gone];
    }

    /// <summary>Answers the client's next request, before it is sent.</summary>
    private void Answer(bool sees, bool interrupted = false, int malformed = 0)
    {
        _sequence++;
        List<byte> answer = [];
        if (sees)
        {
            answer.AddRange(DiagMessages.Message(InetDiagWire.TCPDIAG_GETSOCK, 2, _sequence, Socket()));
        }

        for (var i = 0; i < malformed; i++)
        {
            answer.AddRange(DiagMessages.Message(InetDiagWire.TCPDIAG_GETSOCK, 2, _sequence, new byte[8]));
        }

        var flags = interrupted ? InetDiagWire.NLM_F_DUMP_INTR : (ushort)2;
        answer.AddRange(DiagMessages.Message(InetDiagWire.NLMSG_DONE, flags, _sequence, new byte[4]));
        Libc.Send(_kernel, CollectionsMarshal.AsSpan(answer)).ShouldBe(answer.Count);
    }

    /// <summary>A connection to 10.2.0.2:5432 with the inode of one that this process holds, used just now.</summary>
    private byte[] Socket()
    {
        const int infoLength = 280;
        var payload = new byte[InetDiagWire.MessageSize + 4 + infoLength];
        payload[0] = Libc.AF_INET;
        payload[1] = (byte)TcpState.Established;
        BinaryPrimitives.WriteUInt16BigEndian(payload.AsSpan(4), 40000);
        BinaryPrimitives.WriteUInt16BigEndian(payload.AsSpan(6), 5432);
        new byte[] { 10, 2, 0, 1 }.CopyTo(payload, 8);
        new byte[] { 10, 2, 0, 2 }.CopyTo(payload, 24);
        MemoryMarshal.Write(payload.AsSpan(44), Cookie);
        var inode = uint.Parse(new FileInfo($"/proc/self/fd/{_held.Client.Handle}").LinkTarget!["socket:[".Length..^1], System.Globalization.CultureInfo.InvariantCulture);
        MemoryMarshal.Write(payload.AsSpan(68), inode);
        MemoryMarshal.Write(payload.AsSpan(72), (ushort)(4 + infoLength));
        MemoryMarshal.Write(payload.AsSpan(74), (ushort)2);
        var info = payload.AsSpan(76);
        MemoryMarshal.Write(info[148..], 1u); // tcpi_data_segs_in; tcpi_last_data_recv is 0: just now
        MemoryMarshal.Write(info[152..], 1u);
        return payload;
    }

    [LibraryImport("libc", EntryPoint = "socketpair", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int SocketPair(int domain, int type, int protocol, [Out] int[] pair);
}
