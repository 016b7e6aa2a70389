using System.Net;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.SockDiag;

/// <summary>The wire format, against what Linux 6.18 sent for two connections of its own.</summary>
public sealed class InetDiagWireTests
{
    // A client that has sent 5 bytes, has 7 unread ones, and SO_KEEPALIVE just set; request by its ports, TCP_INFO asked for.
    private const string CapturedV4 =
        "98010000140000002a0000004904000002010200845286377f0000010000000000000000000000007f00000100000000000000000000000000000000bc4304000000000000dd6d00" +
        "07000000000000000000000019934b00050008000000000008000f00000000000c001500010000000000000006001600520000001c010200010000000007aa01e01c0300409c0000" +
        "008000001802000000000000000000000000000000000000000000002c010000000000002c0100002c010000ffff0000d7ff00001e00000011000000ffffff7f0b000000cbff0000" +
        "0300000000000000d7ff00000000000049f8556806000000ffffffffffffffff06000000000000000700000000000000040000000300000000000000090000000100000001000000" +
        "388e03d90000000000000000000000000000000000000000000000000000000002000000000000000500000000000000000000000000000000000000000000000000000000000100" +
        "000001000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";

    private const string CapturedV6 =
        "98010000140000002a000000490400000a010200d026cb75000000000000000000000000000000010000000000000000000000000000000100000000bd4304000000000000dd6d00" +
        "0700000000000000000000001d934b00050008000000000008000f00000000000c001500010000000000000006001600120000001c010200010000000007aa01e01c0300409c0000" +
        "008000001802000000000000000000000000000000000000000000003001000000000000300100003001000000000100c4ff0000140000000b000000ffffff7f0b000000b8ff0000" +
        "0300000000000000c4ff000000000000e31e5ee609000000ffffffffffffffff060000000000000007000000000000000400000003000000000000000a0000000100000001000000" +
        "000050c30000000000000000000000000000000000000000000000000000000002000000000000000500000000000000000000000000000000000000000000000000000000000100" +
        "000001000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";

    [Fact]
    public void The_kernels_answer_for_an_ipv4_connection_is_read_field_by_field()
    {
        var socket = Read(CapturedV4);
        socket.Family.ShouldBe(2);
        socket.State.ShouldBe(TcpState.Established);
        socket.Timer.ShouldBe(SocketTimer.Keepalive);
        socket.TimerRetransmissions.ShouldBe((byte)0);
        socket.TimerExpiresMilliseconds.ShouldBe(7200000u);
        socket.Local.ToEndPoint().ShouldBe(new IPEndPoint(IPAddress.Loopback, 33874));
        socket.Peer.ToEndPoint().ShouldBe(new IPEndPoint(IPAddress.Loopback, 34359));
        socket.Cookie.ShouldBe(new SocketCookie(0x443bc));
        socket.Inode.ShouldBe(4952857u);
        socket.ReceiveQueue.ShouldBe(7u);
        socket.SendQueue.ShouldBe(0u);
        socket.Uid.ShouldBe(0u);
        var info = socket.Info;
        info.Length.ShouldBe(280);
        info.IsPresent.ShouldBeTrue();
        info.HasSegments.ShouldBeTrue();
        info.HasBytesSent.ShouldBeTrue();
        info.HasSendWindow.ShouldBeTrue();
        info.Unacked.ShouldBe(0u);
        info.Retransmits.ShouldBe((byte)0);
        info.RtoMicroseconds.ShouldBe(204000u);
        info.LastDataSentMilliseconds.ShouldBe(300u);
        info.LastDataReceivedMilliseconds.ShouldBe(300u);
        info.LastAckReceivedMilliseconds.ShouldBe(300u);
        info.RttMicroseconds.ShouldBe(30u);
        info.BytesAcked.ShouldBe(6ul);
        info.BytesReceived.ShouldBe(7ul);
        info.SegmentsOut.ShouldBe(4u);
        info.SegmentsIn.ShouldBe(3u);
        info.DataSegmentsIn.ShouldBe(1u);
        info.DataSegmentsOut.ShouldBe(1u);
        info.BytesSent.ShouldBe(5ul);
        info.BytesRetransmitted.ShouldBe(0ul);
        info.TotalRetransmissions.ShouldBe(0u);
    }

    [Fact]
    public void And_for_an_ipv6_connection()
    {
        var socket = Read(CapturedV6);
        socket.Family.ShouldBe(10);
        socket.Local.ToEndPoint().ShouldBe(new IPEndPoint(IPAddress.IPv6Loopback, 53286));
        socket.Peer.ToEndPoint().ShouldBe(new IPEndPoint(IPAddress.IPv6Loopback, 52085));
        socket.Cookie.ShouldBe(new SocketCookie(0x443bd));
        socket.Inode.ShouldBe(4952861u);
        socket.Info.BytesSent.ShouldBe(5ul);
        socket.Info.LastDataSentMilliseconds.ShouldBe(304u);
    }

    [Theory]
    [InlineData(104, true, false, false, false)] // up to total_retrans: the first TCP_INFO
    [InlineData(160, true, true, false, false)] // data_segs: 4.6
    [InlineData(216, true, true, true, false)] // bytes_retrans: 4.19
    [InlineData(232, true, true, true, true)] // snd_wnd: 5.4
    [InlineData(100, false, false, false, false)]
    [InlineData(0, false, false, false, false)]
    public void An_older_kernels_shorter_tcp_info_is_read_as_far_as_it_goes(int length, bool present, bool segments, bool sent, bool window)
    {
        var bytes = TcpInfoOf(CapturedV4);
        var info = TcpInfo.Read(bytes.AsSpan(0, length));
        (info.IsPresent, info.HasSegments, info.HasBytesSent, info.HasSendWindow).ShouldBe((present, segments, sent, window));
        info.RttMicroseconds.ShouldBe(length >= 72 ? 30u : 0u);
        info.BytesSent.ShouldBe(sent ? 5ul : 0ul);
    }

    [Fact]
    public void Unknown_attributes_are_passed_over()
    {
        var message = Convert.FromHexString(CapturedV4);
        var unknown = new byte[] { 8, 0, 0xff, 0x3f, 1, 2, 3, 4 };
        byte[] payload = [.. message[16..88], .. unknown, .. message[88..], .. unknown];
        InetDiagWire.TryReadSocket(payload, out var socket).ShouldBeTrue();
        socket.Info.BytesSent.ShouldBe(5ul);
    }

    [Theory]
    [InlineData(3)] // shorter than its own header
    [InlineData(0)]
    [InlineData(400)] // longer than the message
    [InlineData(65535)]
    public void An_attribute_of_impossible_length_makes_the_message_malformed(int length)
    {
        var payload = Convert.FromHexString(CapturedV4)[16..];
        BitConverter.TryWriteBytes(payload.AsSpan(72), (ushort)length);
        InetDiagWire.TryReadSocket(payload, out _).ShouldBeFalse();
    }

    [Fact]
    public void A_truncated_message_is_never_read_as_a_whole_one()
    {
        var payload = Convert.FromHexString(CapturedV4)[16..];
        for (var length = 0; length < payload.Length; length++)
        {
            if (InetDiagWire.TryReadSocket(payload.AsSpan(0, length), out var socket))
            {
                length.ShouldBeGreaterThanOrEqualTo(72);
                socket.Info.IsPresent.ShouldBeFalse($"{length} bytes");
            }
        }
    }

    [Fact]
    public void Another_address_family_is_none_of_ours()
    {
        var payload = Convert.FromHexString(CapturedV4)[16..];
        payload[0] = 1;
        InetDiagWire.TryReadSocket(payload, out _).ShouldBeFalse();
    }

    [Fact]
    public void Requests_have_the_kernels_sizes()
    {
        var buffer = new byte[256];
        InetDiagWire.WriteDump(buffer, 1, 0xfff, InetDiagWire.ExtensionInfo, []).ShouldBe(16 + 60);
        InetDiagWire.WriteDump(buffer, 1, 0xfff, 0, new byte[20]).ShouldBe(16 + 60 + 4 + 20);
        BitConverter.ToUInt32(buffer).ShouldBe(16u + 60 + 4 + 20);
        BitConverter.ToUInt16(buffer, 76).ShouldBe((ushort)24);
        InetDiagWire.WriteSingle(buffer, 1, InetDiagWire.SOCK_DESTROY, InetDiagWire.NLM_F_REQUEST, default, 0).ShouldBe(16 + 56);
    }

    [Fact]
    public void Messages_follow_each_other_and_the_last_ones_padding_may_be_missing()
    {
        byte[] one = [18, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 9];
        ReadOnlySpan<byte> rest = (byte[])[.. one, 0, 0, .. one];
        for (var i = 0; i < 2; i++)
        {
            InetDiagWire.TryNext(ref rest, out var message, out var malformed).ShouldBeTrue();
            malformed.ShouldBeFalse();
            message.Payload.Length.ShouldBe(2);
            message.Errno.ShouldBe(-1);
        }

        InetDiagWire.TryNext(ref rest, out _, out var end).ShouldBeFalse();
        end.ShouldBeFalse();
    }

    [Fact]
    public void No_bytes_whatever_make_the_reader_fail_or_hang() => Fuzz(
        from length in Gen.Choose(0, 600)
        from bytes in Gen.Choose(0, 255).Select(number => (byte)number).ArrayOf(length)
        select bytes);

    [Fact]
    public void Nor_do_real_answers_with_bytes_changed() => Fuzz(
        from real in Gen.Elements(CapturedV4, CapturedV6)
        from cut in Gen.Choose(0, 408)
        from places in Gen.Choose(0, 407).ArrayOf(6)
        from values in Gen.Choose(0, 255).ArrayOf(6)
        select Changed(real, cut, places, values));

    private static byte[] Changed(string real, int cut, int[] places, int[] values)
    {
        var bytes = Convert.FromHexString(real);
        for (var i = 0; i < places.Length; i++)
        {
            bytes[places[i]] = (byte)values[i];
        }

        return bytes[..cut];
    }

    private static void Fuzz(Gen<byte[]> inputs) => Check.One(Config.QuickThrowOnFailure.WithMaxTest(50_000), Prop.ForAll(inputs.ToArbitrary(), bytes =>
    {
        ReadOnlySpan<byte> rest = bytes;
        var messages = 0;
        while (InetDiagWire.TryNext(ref rest, out var message, out _))
        {
            _ = message.Errno;
            InetDiagWire.TryReadSocket(message.Payload, out _);
            messages++;
        }

        InetDiagWire.TryReadSocket(bytes, out _);
        TcpInfo.Read(bytes);
        return messages <= bytes.Length / 16;
    }));

    /// <summary>The payload of the INET_DIAG_INFO attribute.</summary>
    private static byte[] TcpInfoOf(string hex)
    {
        var message = Convert.FromHexString(hex);
        for (var at = 88; ; at += (BitConverter.ToUInt16(message, at) + 3) & ~3)
        {
            if (BitConverter.ToUInt16(message, at + 2) == 2)
            {
                return message[(at + 4)..(at + BitConverter.ToUInt16(message, at))];
            }
        }
    }

    private static SocketObservation Read(string hex)
    {
        ReadOnlySpan<byte> rest = Convert.FromHexString(hex);
        rest.Length.ShouldBe(408);
        InetDiagWire.TryNext(ref rest, out var message, out var malformed).ShouldBeTrue();
        malformed.ShouldBeFalse();
        message.Type.ShouldBe(InetDiagWire.SOCK_DIAG_BY_FAMILY);
        message.Sequence.ShouldBe(42u);
        rest.Length.ShouldBe(0);
        InetDiagWire.TryReadSocket(message.Payload, out var socket).ShouldBeTrue();
        return socket;
    }
}
