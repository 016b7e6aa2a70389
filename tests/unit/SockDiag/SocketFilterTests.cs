using System.Buffers.Binary;
using System.Net;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.SockDiag;

/// <summary>The filter's bytecode: run here as the kernel's inet_diag_bc_run() runs it, and run by the kernel itself.</summary>
public sealed class SocketFilterTests
{
    [Fact]
    public void Bytecode_and_conditions_agree_on_every_socket()
    {
        var address = Gen.OneOf(
            Gen.Elements("10.0.0.1", "10.0.0.2", "10.0.1.1", "127.0.0.1", "fd00::1", "fd00::2", "fd00:0:0:1::1", "::1", "::ffff:10.0.0.1").Select(IPAddress.Parse),
            Gen.Choose(int.MinValue, int.MaxValue).Select(number => new IPAddress((uint)number)));
        var end = from ip in address from port in Gen.Choose(1, 4) select TcpEndPoint.From(ip, port);
        var condition =
            from which in Gen.Elements(FilterEnd.Peer, FilterEnd.Local)
            from network in end
            from length in Gen.Choose(0, 32)
            select new FilterCondition(which, network.Address, length == 0 ? 0 : network.IsIPv4 ? 96 + length : length * 4, network.Port);
        var cases =
            from count in Gen.Choose(1, 6)
            from conditions in condition.ArrayOf(count)
            from local in end
            from peer in end
            select (conditions, local, peer);
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(30_000), Prop.ForAll(cases.ToArbitrary(), given =>
        {
            var code = SocketFilter.Compile(given.conditions);
            return IsWellFormed(code)
                && Accepts(code, given.local, given.peer) == given.conditions.Any(wanted => wanted.Matches(given.local, given.peer));
        }));
    }

    [Fact]
    public void A_filter_of_nothing_is_refused() => Should.Throw<ArgumentException>(() => SocketFilter.Compile([]));

    [Fact]
    public void A_filter_too_long_for_the_kernel_is_refused()
    {
        var conditions = Enumerable.Range(1, 2000).Select(port => new FilterCondition(FilterEnd.Peer, UInt128.One, 128, (ushort)port)).ToList();
        SocketFilter.Compile(conditions).Length.ShouldBeLessThanOrEqualTo(SocketFilter.MaximumLength);
        Should.Throw<ArgumentException>(() => SocketFilter.Compile([.. conditions, .. conditions]));
    }

    [Fact]
    public void The_kernel_sends_exactly_the_sockets_that_match()
    {
        using var one = new Loopback("127.0.0.1");
        using var two = new Loopback("127.0.0.2");
        using var far = new Loopback("127.77.0.9");
        using var six = new Loopback("::1");
        using var mapped = new Loopback("::ffff:127.0.0.3");
        Loopback[] all = [one, two, far, six, mapped];

        foreach (var only in all)
        {
            Found(all, Peer(only, null)).ShouldBe([only]);
        }

        Found(all, Peer(one, null), Peer(six, null), Peer(mapped, null)).ShouldBe([one, six, mapped]);

        // Networks: 127.0.0.0/16 holds the first two (and the mapped one), not 127.77.0.9.
        Found(all, [.. all.Select(connection => new FilterCondition(FilterEnd.Peer, TcpEndPoint.From(IPAddress.Parse("127.0.0.0"), 0).Address, 96 + 16, (ushort)connection.Port))])
            .ShouldBe([one, two, mapped]);

        // Any address, port alone: both families.
        Found(all, [.. all.Select(connection => new FilterCondition(FilterEnd.Peer, UInt128.Zero, 0, (ushort)connection.Port))]).ShouldBe(all);

        // The local end.
        Found(all, new FilterCondition(FilterEnd.Local, two.Key.Local.Address, 128, two.Key.Local.Port)).ShouldBe([two]);
    }

    private static FilterCondition Peer(Loopback connection, int? port) =>
        new(FilterEnd.Peer, connection.Key.Peer.Address, 128, (ushort)(port ?? connection.Port));

    private static List<Loopback> Found(Loopback[] all, params FilterCondition[] conditions)
    {
        using var diagnostics = SockDiagClient.Open();
        var cookies = new List<SocketCookie>();
        var filter = SocketFilter.Compile(conditions);
        diagnostics.Dump(1u << (int)TcpState.Established, filter, withInfo: false, (in SocketObservation socket) =>
        {
            conditions.Any(Matching(socket)).ShouldBeTrue($"{socket.Local} -> {socket.Peer}");
            cookies.Add(socket.Cookie);
        });

        return [.. all.Where(connection => cookies.Contains(connection.Cookie))];
    }

    private static Func<FilterCondition, bool> Matching(SocketObservation socket) => condition => condition.Matches(socket.Local, socket.Peer);

    /// <summary>What inet_diag_bc_audit() demands: lengths that stay inside, jumps that land on operations or the end.</summary>
    private static bool IsWellFormed(ReadOnlySpan<byte> code)
    {
        var starts = new HashSet<int> { code.Length, code.Length + 4 };
        for (var at = 0; at < code.Length; at += code[at + 1])
        {
            starts.Add(at);
            if (code[at + 1] < 4 || code[at + 1] % 4 != 0)
            {
                return false;
            }
        }

        for (var at = 0; at < code.Length; at += code[at + 1])
        {
            if (!starts.Contains(at + BitConverter.ToUInt16(code[(at + 2)..])))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>inet_diag_bc_run(): len counts down by yes or no; zero is a match, anything else is none.</summary>
    private static bool Accepts(ReadOnlySpan<byte> code, TcpEndPoint local, TcpEndPoint peer)
    {
        var left = code.Length;
        var at = 0;
        while (left > 0)
        {
            var no = BitConverter.ToUInt16(code[(at + 2)..]);
            var yes = code[at] switch
            {
                1 => false, // JMP: always "no"
                7 => Holds(code[(at + 4)..], local),
                8 => Holds(code[(at + 4)..], peer),
                var other => throw new InvalidOperationException($"operation {other}"),
            };
            var step = yes ? code[at + 1] : no;
            left -= step;
            at += step;
        }

        return left == 0;
    }

    private static bool Holds(ReadOnlySpan<byte> condition, TcpEndPoint end)
    {
        var port = BitConverter.ToInt32(condition[4..]);
        if (port != -1 && port != end.Port)
        {
            return false;
        }

        int family = condition[0];
        int prefix = condition[1];
        if (prefix == 0)
        {
            return true;
        }

        var wanted = family == 2
            ? ((UInt128)0xffff << 32) | BinaryPrimitives.ReadUInt32BigEndian(condition[8..])
            : BinaryPrimitives.ReadUInt128BigEndian(condition[8..]);
        return end.IsIn(wanted, family == 2 ? 96 + prefix : prefix);
    }
}
