using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Endpoints;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>
/// The control socket and a local user who may use it and means ill: requests that are none, clients that leave in the
/// middle or do not read. Whoever asks properly is answered all the same.
/// </summary>
internal sealed class ControlTarget : FuzzTarget
{
    private static readonly string[] Words = ["ping", "status", "incidents ", "incidents 5", "incidents 10000", "\n", "\r\n", " ", "\0", "-1", "2147483648", new('x', 5000)];

    private readonly string _directory = Scratch.Directory();
    private readonly ControlServer _server;
    private readonly byte[] _answer = new byte[64 * 1024];
    private int _tried;

    internal ControlTarget() => _server = ControlServer.Start(_directory, () => Snapshot, count => [.. Enumerable.Repeat(Incident, Math.Min(count, 50))]);

    internal override void Try(Dice dice)
    {
        var request = Encoding.UTF8.GetBytes(dice.Pick("ping\n", "status\n", "incidents 7\n", "incidents\n", "\n", ""));
        if (dice.Chance(0.8))
        {
            request = dice.Damage(request, Words);
        }

        // It may be that so many clients are being served that this one is turned away.
        using var client = Connect();
        client.LingerState = new LingerOption(enable: true, seconds: 0);
        try
        {
            client.Send(request);
            var waits = request.AsSpan().Contains((byte)'\n') || request.Length >= ControlSocket.MaxRequestBytes;
            if (dice.Chance(0.5))
            {
                client.Shutdown(SocketShutdown.Send);
                waits = true;
            }

            if (waits && dice.Chance(0.7))
            {
                IsDocument(Read(client));
            }
        }
        catch (SocketException)
        {
            // Cut off: as it should be.
        }

        if (++_tried % 500 == 0)
        {
            Ping();
        }
    }

    public override void Dispose()
    {
        base.Dispose();
        _server.DisposeAsync().AsTask().GetAwaiter().GetResult();
        Directory.Delete(_directory, recursive: true);
    }

    private static AgentSnapshot Snapshot { get; } = new()
    {
        Time = DateTimeOffset.UnixEpoch,
        Scan = 1,
        Duration = TimeSpan.Zero,
        Mode = "protect",
        Connections = [],
        Upstreams = [],
        Limitations = [],
    };

    private static Incident Incident { get; } = new()
    {
        Id = "1",
        Time = DateTimeOffset.UnixEpoch,
        Upstream = "db",
        Cause = "stuck",
        Remedy = "recycle",
        Outcome = "released",
        Pid = 1,
        WithheldBy = null,
        Why = "silence",
    };

    /// <summary>Somebody who asks properly; clients of before may still be on their way out.</summary>
    private void Ping()
    {
        for (var until = Environment.TickCount64 + 15_000; ; Thread.Sleep(20))
        {
            try
            {
                using var client = Connect();
                client.Send("ping\n"u8);
                if (Encoding.UTF8.GetString(Read(client)).Contains("\"pid\"", StringComparison.Ordinal))
                {
                    return;
                }
            }
            catch (SocketException)
            {
                // Turned away: again.
            }

            Hold(Environment.TickCount64 < until, "nobody is answered any more");
        }
    }

    private Socket Connect()
    {
        var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 30_000 };
        client.Connect(new UnixDomainSocketEndPoint(ControlSocket.PathIn(_directory)));
        return client;
    }

    private byte[] Read(Socket client)
    {
        var length = 0;
        int read;
        while (length < _answer.Length && (read = client.Receive(_answer.AsSpan(length))) > 0)
        {
            length += read;
        }

        return _answer[..length];
    }

    private static void IsDocument(byte[] answer)
    {
        if (answer.Length == 0)
        {
            return;
        }

        try
        {
            using var document = JsonDocument.Parse(answer);
        }
        catch (JsonException e)
        {
            throw new WrongException($"an answer that is no document: {e.Message}");
        }
    }
}
