using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Text;

namespace Sidecar.Probes.Paths;

/// <summary>
/// Ends the conversation of a connect probe as a polite client would, so that the server logs nothing, or as little as it can, and counts nothing
/// against this host. Everything is bounded by one deadline; whatever goes wrong, the socket is closed by its owner afterwards.
/// </summary>
internal static class ServerFarewell
{
    /// <summary>A user that MySQL shall not know; its log shows the name.</summary>
    internal const string MySqlUser = "conn_sidecar_probe";

    private const byte MySqlOk = 0;
    private const byte MySqlError = 0xff;
    private const byte MySqlGreeting = 10;
    private const byte MySqlAuthSwitch = 0xfe;

    /// <summary>Says goodbye; never throws.</summary>
    /// <param name="socket">The connection.</param>
    /// <param name="protocol">What was asked.</param>
    /// <param name="answer">What has come back; empty where nothing has, yet; null where it is no server of that protocol.</param>
    /// <param name="deadline">When to stop waiting for the server.</param>
    internal static async Task SayAsync(Socket socket, ConnectProbeProtocol protocol, byte[]? answer, CancellationToken deadline)
    {
        try
        {
            switch (protocol)
            {
                case ConnectProbeProtocol.PostgreSql when answer is [(byte)'S']:
                    await FinishTlsAsync(socket, deadline).ConfigureAwait(false);
                    break;
                case ConnectProbeProtocol.MySql when answer is not null:
                    await FailMySqlLoginAsync(socket, answer, deadline).ConfigureAwait(false);
                    break;
            }

            // What is unread at close() makes it send RST instead of FIN, which PostgreSQL and others log: read to the server's own end.
            socket.Shutdown(SocketShutdown.Send);
            var rest = new byte[4096];
            while (await socket.ReceiveAsync(rest, SocketFlags.None, deadline).ConfigureAwait(false) > 0)
            {
            }
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or IOException or ObjectDisposedException or AuthenticationException or InvalidOperationException
            or TypeInitializationException or DllNotFoundException)
        {
            // The answer is known. TypeInitializationException, DllNotFoundException: there is no OpenSSL on this host, and PostgreSQL logs one line.
        }
    }

    /// <summary>
    /// After 'S' PostgreSQL expects TLS and logs "could not accept SSL connection: EOF detected" when nothing comes. Once TLS is up, an end without
    /// a startup packet is silent. The certificate does not matter: nothing is sent but close_notify.
    /// </summary>
    private static async Task FinishTlsAsync(Socket socket, CancellationToken deadline)
    {
        var network = new NetworkStream(socket, ownsSocket: false);
        await using var stream = new SslStream(network, leaveInnerStreamOpen: true);
        await stream.AuthenticateAsClientAsync(
            new SslClientAuthenticationOptions
            {
                TargetHost = "",
#pragma warning disable CA5359, MA0039 // no secret is sent and nothing that is read is believed
                RemoteCertificateValidationCallback = static (_, _, _, _) => true,
#pragma warning restore CA5359, MA0039
            },
            deadline).ConfigureAwait(false);
        await stream.ShutdownAsync().ConfigureAwait(false);
        var rest = new byte[256];
        while (await stream.ReadAsync(rest, deadline).ConfigureAwait(false) > 0)
        {
        }
    }

    /// <summary>
    /// MySQL and MariaDB count each handshake that is not completed against the host and block it at max_connect_errors (100). COM_QUIT, an empty
    /// packet, FIN and RST are all counted; a login that is refused is not, nor does it set the counter back. Where the user exists after all
    /// (an anonymous one), the login sets the counter to 0 and COM_QUIT ends it.
    /// </summary>
    private static async Task FailMySqlLoginAsync(Socket socket, byte[] answer, CancellationToken deadline)
    {
        var packets = new MySqlPackets(socket, answer);
        if (await packets.ReadAsync(deadline).ConfigureAwait(false) is not [MySqlGreeting, ..])
        {
            return; // an error instead of a greeting: the server has ended it
        }

        await packets.SendAsync(LoginOf(MySqlUser), deadline).ConfigureAwait(false);
        for (var rounds = 0; rounds < 3; rounds++)
        {
            switch (await packets.ReadAsync(deadline).ConfigureAwait(false))
            {
                case [MySqlOk, ..]:
                    await packets.QuitAsync(deadline).ConfigureAwait(false);
                    return;
                case null or [MySqlError, ..]:
                    return;
                case [MySqlAuthSwitch, ..]:
                default:
                    await packets.SendAsync([], deadline).ConfigureAwait(false); // an empty password, by whatever method
                    break;
            }
        }
    }

    /// <summary>HandshakeResponse41 without a password.</summary>
    private static byte[] LoginOf(string user)
    {
        // CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH; largest packet; utf8mb4; 23 bytes of zero.
        byte[] fixedPart = [0x01, 0x82, 0x08, 0x00, 0, 0, 0, 1, 45, .. new byte[23]];
        return [.. fixedPart, .. Encoding.ASCII.GetBytes(user), 0, 0, .. "mysql_native_password"u8, 0];
    }

    /// <summary>Packets of MySQL's protocol: 3 bytes length, 1 byte number, payload.</summary>
    private sealed class MySqlPackets(Socket socket, byte[] received)
    {
        private const int Header = 4;

        private byte[] _received = received;
        private byte _next;

        internal async Task<byte[]?> ReadAsync(CancellationToken deadline)
        {
            while (true)
            {
                if (_received.Length >= Header)
                {
                    var length = _received[0] | _received[1] << 8 | _received[2] << 16;
                    if (length > ServerQuestion.MostBytes)
                    {
                        return null;
                    }

                    if (_received.Length >= Header + length)
                    {
                        var payload = _received[Header..(Header + length)];
                        _next = (byte)(_received[3] + 1);
                        _received = _received[(Header + length)..];
                        return payload;
                    }
                }

                var more = new byte[ServerQuestion.MostBytes];
                var count = await socket.ReceiveAsync(more, SocketFlags.None, deadline).ConfigureAwait(false);
                if (count == 0)
                {
                    return null;
                }

                _received = [.. _received, .. more.AsSpan(0, count)];
            }
        }

        internal Task<int> SendAsync(byte[] payload, CancellationToken deadline) =>
            socket.SendAsync((byte[])[(byte)payload.Length, (byte)(payload.Length >> 8), 0, _next, .. payload], SocketFlags.None, deadline).AsTask();

        internal Task<int> QuitAsync(CancellationToken deadline)
        {
            _next = 0; // a command begins a new count
            return SendAsync([1], deadline);
        }
    }
}
