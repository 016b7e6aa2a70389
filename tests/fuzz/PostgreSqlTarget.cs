using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Npgsql;
using Sidecar.Probes.PostgreSql;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>
/// The session on a PostgreSQL server, and a server that lies: messages of the protocol with what no server would say in
/// them, damaged, cut off or followed by silence. The session says that it does not understand, in time, and no more.
/// </summary>
internal sealed class PostgreSqlTarget : FuzzTarget
{
    /// <summary>Opening and asking have a deadline each.</summary>
    private static readonly TimeSpan InTime = SessionProbe.Deadline * 4 + TimeSpan.FromSeconds(30);

    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly Thread _server;
    private readonly Lock _gate = new();
    private Script? _script;

    internal PostgreSqlTarget()
    {
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(16);
        _server = new Thread(Serve) { IsBackground = true };
        _server.Start();
    }

    internal override void Try(Dice dice)
    {
        var script = new Script(dice);
        lock (_gate)
        {
            _script = script;
        }

        var probe = new SessionProbe(() => new NpgsqlConnectionStringBuilder
        {
            Host = "127.0.0.1",
            Port = ((IPEndPoint)_listener.LocalEndPoint!).Port,
            Username = "x",
            Password = "y",
            SslMode = SslMode.Disable,
#pragma warning disable CS0618 // the data source is the probe's own; the types' catalogue would be one more answer to make up
            ServerCompatibilityMode = ServerCompatibilityMode.NoTypeLoading,
#pragma warning restore CS0618
        });
        try
        {
            var asking = probe.ScanAsync([IPAddress.Loopback], CancellationToken.None);
            Hold(asking.ContinueWith(_ => { }, TaskScheduler.Default).Wait(InTime), "it waits for ever");
            var scan = asking.GetAwaiter().GetResult();
            Hold(scan.Sessions.All(session => session.Client.Port > 0 && session.Age >= TimeSpan.Zero), "a session that cannot be was believed");
            Hold(!script.IsHonest || scan.Sessions.Count == 1, "an honest answer was read wrongly");
        }
        catch (ServerProbeException e)
        {
            Hold(!script.IsHonest, $"an honest answer was refused: {e.Message}");
        }
        finally
        {
            Hold(probe.DisposeAsync().AsTask().Wait(InTime), "it does not close");
        }
    }

    public override void Dispose()
    {
        base.Dispose();
        _listener.Dispose();
        _server.Join();
    }

    private void Serve()
    {
        while (true)
        {
            try
            {
                using var client = _listener.Accept();
                Script script;
                lock (_gate)
                {
                    script = _script!;
                }

                script.Play(client);
            }
            catch (SocketException e) when (e.SocketErrorCode is not (SocketError.Interrupted or SocketError.OperationAborted or SocketError.NotSocket or SocketError.InvalidArgument))
            {
                // The client had enough.
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return;
            }
        }
    }

    /// <summary>What the server says to each thing it hears.</summary>
    private sealed class Script
    {
        private readonly List<byte[]> _answers = [];
        private readonly bool _endsInSilence;

        internal Script(Dice dice)
        {
            IsHonest = dice.Chance(0.1);
            _endsInSilence = !IsHonest && dice.Chance(0.002);
            _answers.Add(Of(dice, [.. Message('R', new byte[4]), .. Message('S', "server_version\0" + "15.4\0"), .. Message('S', "client_encoding\0UTF8\0"), .. Message('S', "integer_datetimes\0on\0"),
                .. Message('K', new byte[8]), .. Ready]));
            _answers.Add(Of(dice, Rows(dice, "titibbbtiit", 1)));
            _answers.Add(Of(dice, Rows(dice, "bfif", 1)));
            _answers.Add(Of(dice, Rows(dice, "idtitttffffb", IsHonest ? 1 : dice.Choose(0, 5))));
            for (var more = dice.Choose(0, 2); more > 0; more--)
            {
                _answers.Add(Of(dice, Rows(dice, "titibbbtiit", 1)));
            }
        }

        internal bool IsHonest { get; }

        internal void Play(Socket client)
        {
            // A client that waits for the rest of a message that was announced longer than it is asks nothing more.
            client.ReceiveTimeout = IsHonest || _endsInSilence ? 30_000 : 30;
            var buffer = new byte[8192];
            foreach (var answer in _answers)
            {
                if (client.Receive(buffer) == 0)
                {
                    return;
                }

                client.Send(answer);
            }

            // Until the client goes; its question stays without an answer.
            while (_endsInSilence && client.Receive(buffer) > 0)
            {
            }
        }

        private byte[] Of(Dice dice, byte[] honest) => IsHonest || dice.Chance(0.4) ? honest : dice.Damage(honest, ["\0", "15.4", "E\0\0\0\u0009SFATAL\0", "N\0\0\0\u0005\0"]);

        private static byte[] Ready => Message('Z', [(byte)'I']);

        /// <summary>ParseComplete, BindComplete, RowDescription, rows, CommandComplete, ReadyForQuery, all values in binary.</summary>
        private byte[] Rows(Dice dice, string columns, int rows)
        {
            var description = new List<byte>();
            Append16(description, columns.Length);
            foreach (var column in columns)
            {
                var (oid, size) = column switch { 't' => (25, -1), 'i' => (23, 4), 'b' => (16, 1), 'd' => (1184, 8), _ => (701, 8) };
                description.AddRange("c\0"u8.ToArray());
                Append32(description, 0);
                Append16(description, 0);
                Append32(description, oid);
                Append16(description, size);
                Append32(description, -1);
                Append16(description, 1);
            }

            var all = new List<byte>([.. Message('1', []), .. Message('2', []), .. Message('T', [.. description])]);
            for (var row = 0; row < rows; row++)
            {
                var values = new List<byte>();
                Append16(values, columns.Length);
                for (var i = 0; i < columns.Length; i++)
                {
                    var value = Value(dice, columns[i], i, columns.Length);
                    Append32(values, value?.Length ?? -1);
                    values.AddRange(value ?? []);
                }

                all.AddRange(Message('D', [.. values]));
            }

            return [.. all, .. Message('C', "SELECT 1\0"), .. Ready];
        }

        private byte[]? Value(Dice dice, char type, int column, int columns)
        {
            if (!IsHonest && dice.Chance(0.1))
            {
                return null;
            }

            switch (type)
            {
                case 't':
                    var isAddress = columns == 11 ? column is 0 or 2 : column == 2;
                    return Encoding.UTF8.GetBytes(isAddress ? IsHonest ? "127.0.0.1" : dice.Pick("127.0.0.1", "::1", "localhost", "", "999.1.1.1") : IsHonest ? "idle" : dice.Pick("idle", "", "\u0001", new string('x', 500)));
                case 'b':
                    return [(byte)(IsHonest ? 1 : dice.Choose(0, 2))];
                case 'i':
                    var number = new byte[4];
                    BinaryPrimitives.WriteInt32BigEndian(number, IsHonest ? 5432 : (int)dice.Edge());
                    return number;
                case 'd':
                    var date = new byte[8];
                    BinaryPrimitives.WriteInt64BigEndian(date, IsHonest ? 800_000_000_000_000 : dice.Pick((long)dice.Edge(), long.MaxValue, long.MinValue, 0));
                    return date;
                default:
                    var real = new byte[8];
                    BinaryPrimitives.WriteDoubleBigEndian(real, IsHonest ? 12.5 : dice.Pick(double.NaN, double.PositiveInfinity, double.NegativeInfinity, 1e308, -1, 0, 1e-300, dice.Magnitude(1e-6, 1e9)));
                    return real;
            }
        }

        private static byte[] Message(char type, string content) => Message(type, Encoding.UTF8.GetBytes(content));

        private static byte[] Message(char type, byte[] content)
        {
            var message = new List<byte> { (byte)type };
            Append32(message, 4 + content.Length);
            message.AddRange(content);
            return [.. message];
        }

        private static void Append16(List<byte> to, int value) => to.AddRange([(byte)(value >> 8), (byte)value]);

        private static void Append32(List<byte> to, int value) => to.AddRange([(byte)(value >> 24), (byte)(value >> 16), (byte)(value >> 8), (byte)value]);
    }
}
