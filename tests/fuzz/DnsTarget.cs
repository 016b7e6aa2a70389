using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.SockDiag;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>
/// Host names of upstreams, through the system's own resolver and a name server that answers with nothing, with too much,
/// with something else every time, with rubbish, or not at all. It stands at the resolver's address in a network
/// namespace of this program's own.
/// </summary>
internal sealed class DnsTarget : FuzzTarget
{
    private const string Inside = "SIDECAR_FUZZ_NAMESPACE";
    private const int MostAddresses = 64;

    private readonly Socket _server = new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
    private readonly Thread _answering;
    private volatile Answer _answer = new(new Dice(0));

    internal DnsTarget()
    {
        if (!IsInside)
        {
            throw new InvalidOperationException("the target dns runs in a namespace of its own");
        }

        _server.Bind(new IPEndPoint(IPAddress.Loopback, 53));
        _answering = new Thread(Serve) { IsBackground = true };
        _answering.Start();
    }

    /// <summary>Whether this process has a network namespace and a resolver of its own.</summary>
    internal static bool IsInside => Environment.GetEnvironmentVariable(Inside) is not null;

    /// <summary>Runs this program with these arguments in namespaces of its own; its exit code.</summary>
    internal static int RunInside(IReadOnlyList<string> arguments)
    {
        var configuration = Path.Combine(Path.GetTempPath(), $"cs-fuzz-resolv-{Environment.ProcessId}.conf");
        File.WriteAllText(configuration, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        try
        {
            const string script = "ip link set lo up && mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
            var start = new ProcessStartInfo("unshare", ["--net", "--mount", "sh", "-c", script, configuration, "dotnet", typeof(DnsTarget).Assembly.Location, .. WithTarget(arguments)]);
            start.Environment[Inside] = "1";
            using var process = Process.Start(start) ?? throw new InvalidOperationException("unshare did not start");
            process.WaitForExit();
            return process.ExitCode;
        }
        finally
        {
            File.Delete(configuration);
        }
    }

    internal override void Try(Dice dice)
    {
        var upstream = new Upstream(new UpstreamSection { Name = "db", Endpoints = [new EndpointPattern("db.test:5432", "db.test", null, 5432)] });
        var before = 0;
        for (var times = dice.Choose(1, 3); times > 0; times--)
        {
            _answer = new Answer(dice);
            var names = new NameResolver([upstream]);
            names.Resolve(TimeSpan.Zero, CancellationToken.None);
            names.Wait(TimeSpan.FromSeconds(30));
            Hold(!names.IsResolving, "it waits for ever");
            names.Resolve(TimeSpan.Zero, CancellationToken.None);
            var conditions = upstream.Conditions.ToList();
            Hold(conditions.Count <= MostAddresses, $"{conditions.Count} addresses are kept");
            Hold(conditions.Count >= before, "addresses that were known are forgotten");
            Hold(conditions.All(condition => condition is { Port: 5432, PrefixLength: 128 }), "an address is taken for a network");
            Hold(conditions.Count > 0 || names.Sources.Any(source => source.Problem is not null), "that there is no address was not told");
            if (conditions.Count > 0)
            {
                _ = SocketFilter.Compile(conditions);
            }

            before = conditions.Count;
        }
    }

    public override void Dispose()
    {
        base.Dispose();
        _server.Dispose();
        _answering.Join();
    }

    private static IEnumerable<string> WithTarget(IReadOnlyList<string> arguments) => arguments.Contains("--target") ? arguments : [.. arguments, "--target", "dns"];

    private void Serve()
    {
        var buffer = new byte[1500];
        while (true)
        {
            try
            {
                EndPoint client = new IPEndPoint(IPAddress.Any, 0);
                var length = _server.ReceiveFrom(buffer, ref client);
                if (_answer.To(buffer.AsSpan(0, length)) is { } answer)
                {
                    _server.SendTo(answer, client);
                }
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                if (e is ObjectDisposedException || ((SocketException)e).SocketErrorCode is SocketError.Interrupted or SocketError.OperationAborted)
                {
                    return;
                }
            }
        }
    }

    /// <summary>How the server answers the questions of one resolution: the same for both address families.</summary>
    private sealed class Answer(Dice dice)
    {
        private readonly int _addresses = dice.Pick(0, 1, 1, 2, 5, 30, 200);
        private readonly byte _code = (byte)dice.Pick(0, 0, 0, 0, 2, 3, 5);
        private readonly bool _isSilent = dice.Chance(0.001);
        private readonly bool _isDamaged = dice.Chance(0.01);
        private readonly ulong _seed = dice.Next();

        internal byte[]? To(ReadOnlySpan<byte> question)
        {
            var end = question.Length < 12 ? -1 : question[12..].IndexOf((byte)0);
            if (_isSilent || end < 0 || 12 + end + 5 > question.Length)
            {
                return null;
            }

            var own = new Dice(_seed);
            var type = BinaryPrimitives.ReadUInt16BigEndian(question[(12 + end + 1)..]);
            var size = type == 28 ? 16 : 4;
            var addresses = _code == 0 ? Math.Min(_addresses, 1400 / (size + 12)) : 0;
            var answer = new List<byte>(question[..(12 + end + 5)].ToArray());
            (answer[2], answer[3]) = (0x84, (byte)(0x80 | _code));
            (answer[4], answer[5], answer[6], answer[7]) = (0, 1, 0, (byte)addresses);
            (answer[8], answer[9], answer[10], answer[11]) = (0, 0, 0, 0);
            for (var i = 0; i < addresses; i++)
            {
                answer.AddRange([0xc0, 12, (byte)(type >> 8), (byte)type, 0, 1, 0, 0, 0, 0, 0, (byte)size]);
                answer.AddRange(own.Bytes(size));
            }

            return _isDamaged ? own.Damage([.. answer]) : [.. answer];
        }
    }
}
