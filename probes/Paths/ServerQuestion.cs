using System.Buffers.Binary;
using System.Net;
using System.Security.Cryptography;
using System.Text;

namespace Sidecar.Probes.Paths;

/// <summary>What a connect probe asks after the handshake, to prove the server and not a proxy that accepts for it.</summary>
public enum ConnectProbeProtocol
{
    /// <summary>Nothing: the handshake alone, which a proxy or a SYN proxy may have given.</summary>
    Tcp,

    /// <summary>An SSLRequest and its one byte.</summary>
    PostgreSql,

    /// <summary>The greeting, which the server sends first.</summary>
    MySql,

    /// <summary>A PING and the first line that comes back, an error included.</summary>
    Redis,

    /// <summary>OPTIONS * and the beginning of a status line of any code.</summary>
    Http,

    /// <summary>A ClientHello, and a ServerHello or an alert.</summary>
    Tls,
}

/// <summary>How far the bytes that have come back are an answer.</summary>
internal enum AnswerState
{
    /// <summary>They may become one.</summary>
    Incomplete,

    /// <summary>The server speaks its protocol.</summary>
    Complete,

    /// <summary>They are something else.</summary>
    Foreign,
}

/// <summary>The questions, and what counts as their answers. Bytes in, bytes out; nothing here reads or writes a socket.</summary>
internal static class ServerQuestion
{
    /// <summary>More than any answer needs: who sends so much without completing one speaks something else.</summary>
    internal const int MostBytes = 4096;

    private const byte HandshakeRecord = 22;
    private const byte AlertRecord = 21;
    private const byte ClientHelloMessage = 1;
    private const byte ServerHello = 2;

    /// <summary>int32 8, int32 80877103 (protocol-message-formats of PostgreSQL, SSLRequest).</summary>
    private static readonly byte[] SslRequest = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

    /// <summary>The bytes to send; empty where the server speaks first.</summary>
    internal static byte[] Request(ConnectProbeProtocol protocol, IPEndPoint destination) => protocol switch
    {
        ConnectProbeProtocol.PostgreSql => SslRequest,

        // As an array: proxies for Redis do not take the inline form.
        ConnectProbeProtocol.Redis => "*1\r\n$4\r\nPING\r\n"u8.ToArray(),
        ConnectProbeProtocol.Http => Encoding.ASCII.GetBytes($"OPTIONS * HTTP/1.1\r\nHost: {destination}\r\nUser-Agent: conn-sidecar\r\nConnection: close\r\n\r\n"),
        ConnectProbeProtocol.Tls => ClientHello(),
        _ => [],
    };

    /// <summary>Judges everything that has come back so far.</summary>
    internal static AnswerState Judge(ConnectProbeProtocol protocol, ReadOnlySpan<byte> received)
    {
        if (received.IsEmpty)
        {
            return AnswerState.Incomplete;
        }

        var state = protocol switch
        {
            ConnectProbeProtocol.PostgreSql => PostgreSql(received),
            ConnectProbeProtocol.MySql => MySql(received),
            ConnectProbeProtocol.Redis => Redis(received),
            ConnectProbeProtocol.Http => StartsWith(received, "HTTP/"u8),
            ConnectProbeProtocol.Tls => Tls(received),
            _ => AnswerState.Foreign,
        };
        return state == AnswerState.Incomplete && received.Length >= MostBytes ? AnswerState.Foreign : state;
    }

    /// <summary>
    /// 'S' or 'N' stand alone: what follows them unasked is no PostgreSQL (an SSH server's greeting begins with S, too). 'E' begins an error, which
    /// a server sends that is starting, full, or too old.
    /// </summary>
    private static AnswerState PostgreSql(ReadOnlySpan<byte> received) => received[0] switch
    {
        (byte)'S' or (byte)'N' => received.Length == 1 ? AnswerState.Complete : AnswerState.Foreign,
        (byte)'E' => AnswerState.Complete,
        _ => AnswerState.Foreign,
    };

    /// <summary>A packet number 0 that holds a greeting of protocol 10 or 9, or an error: 3 bytes length, 1 byte number, 1 byte kind.</summary>
    private static AnswerState MySql(ReadOnlySpan<byte> received)
    {
        if (received.Length < 5)
        {
            return received.Length == 4 && received[3] != 0 ? AnswerState.Foreign : AnswerState.Incomplete;
        }

        var length = received[0] | received[1] << 8 | received[2] << 16;
        return received[3] == 0 && length is > 1 and < MostBytes && received[4] is 10 or 9 or 0xff ? AnswerState.Complete : AnswerState.Foreign;
    }

    /// <summary>A whole line that begins as a reply: PONG, or an error such as NOAUTH, LOADING, DENIED.</summary>
    private static AnswerState Redis(ReadOnlySpan<byte> received) =>
        received[0] is not ((byte)'+' or (byte)'-') ? AnswerState.Foreign
        : received.IndexOf("\r\n"u8) > 1 ? AnswerState.Complete
        : AnswerState.Incomplete;

    /// <summary>A record of SSL 3 or TLS: a handshake that begins with a ServerHello, or an alert of two bytes.</summary>
    private static AnswerState Tls(ReadOnlySpan<byte> received)
    {
        if (received[0] is not (HandshakeRecord or AlertRecord) || (received.Length > 1 && received[1] != 3))
        {
            return AnswerState.Foreign;
        }

        if (received.Length < 6)
        {
            return AnswerState.Incomplete;
        }

        int length = BinaryPrimitives.ReadUInt16BigEndian(received[3..]);
        return received[0] == AlertRecord
            ? length == 2 ? AnswerState.Complete : AnswerState.Foreign
            : received[5] == ServerHello ? AnswerState.Complete : AnswerState.Foreign;
    }

    private static AnswerState StartsWith(ReadOnlySpan<byte> received, ReadOnlySpan<byte> wanted) =>
        received.Length >= wanted.Length
            ? received.StartsWith(wanted) ? AnswerState.Complete : AnswerState.Foreign
            : wanted.StartsWith(received) ? AnswerState.Incomplete : AnswerState.Foreign;

    /// <summary>
    /// A ClientHello that servers of TLS 1.2 and 1.3 accept (RFC 8446, 4.1.2, with the record header of appendix D). It names no host (an address is
    /// none): who insists on a name answers with an alert, which is an answer. The key share is 32 random bytes: each such string is a public key
    /// of X25519 (RFC 7748, 5), and no key is ever derived.
    /// </summary>
    internal static byte[] ClientHello()
    {
        ReadOnlySpan<byte> suites =
        [
            0x13, 0x01, 0x13, 0x02, 0x13, 0x03, // TLS 1.3
            0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 0xcc, 0xa9, 0xcc, 0xa8, // ECDHE with AES-GCM or ChaCha20
            0x00, 0x9c, 0x00, 0x9d, 0x00, 0x2f, 0x00, 0x35, // RSA
        ];
        ReadOnlySpan<byte> extensions =
        [
            0x00, 0x2b, 0, 5, 4, 0x03, 0x04, 0x03, 0x03, // supported_versions: 1.3, 1.2
            0x00, 0x0a, 0, 8, 0, 6, 0x00, 0x1d, 0x00, 0x17, 0x00, 0x18, // supported_groups: x25519, secp256r1, secp384r1
            0x00, 0x0b, 0, 2, 1, 0, // ec_point_formats: uncompressed
            0x00, 0x0d, 0, 18, 0, 16, 0x04, 0x03, 0x08, 0x04, 0x04, 0x01, 0x05, 0x03, 0x08, 0x05, 0x05, 0x01, 0x08, 0x06, 0x06, 0x01, // signature_algorithms
            0xff, 0x01, 0, 1, 0, // renegotiation_info: first handshake
            0x00, 0x17, 0, 0, // extended_master_secret
            0x00, 0x33, 0, 38, 0, 36, 0x00, 0x1d, 0, 32, // key_share: x25519, 32 bytes follow
        ];
        byte[] body =
        [
            3, 3, // legacy_version
            .. RandomNumberGenerator.GetBytes(32),
            32, .. RandomNumberGenerator.GetBytes(32), // legacy_session_id
            0, (byte)suites.Length, .. suites,
            1, 0, // no compression
            0, (byte)(extensions.Length + 32), .. extensions, .. RandomNumberGenerator.GetBytes(32),
        ];
        return [HandshakeRecord, 3, 1, .. UInt16(body.Length + 4), ClientHelloMessage, 0, .. UInt16(body.Length), .. body];
    }

    private static byte[] UInt16(int value) => [(byte)(value >> 8), (byte)value];
}
