using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Sidecar.Agent.Audit.Model;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Paths;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Audit.Host;

/// <summary>
/// Connects to each address of a name, one at a time, at most two in a second, without sending anything: dead ones and those
/// that answer now and then are told from the living.
/// </summary>
internal static class NameCheck
{
    /// <summary>Each address is tried this often, unless it never answers: then once less.</summary>
    private const int Attempts = 3;

    private const int MostAddresses = 64;
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(2);

    /// <summary>Checks names; those without an address carry the reason.</summary>
    /// <param name="network">The namespace to connect from.</param>
    /// <param name="names">What to try.</param>
    /// <param name="progress">Told each address before it is tried.</param>
    /// <param name="cancellation">Ends it with what is known.</param>
    public static async Task<IReadOnlyList<CheckedName>> RunAsync(
        NetworkNamespace network, IReadOnlyList<NameToCheck> names, Action<string>? progress, CancellationToken cancellation)
    {
        var found = new List<CheckedName>();
        foreach (var (host, port, source) in names)
        {
            var name = string.Create(CultureInfo.InvariantCulture, $"{host}:{port}");
            IPAddress[] addresses;
            try
            {
                addresses = await Dns.GetHostAddressesAsync(host, cancellation).WaitAsync(TimeSpan.FromSeconds(10), cancellation).ConfigureAwait(false);
            }
            catch (Exception e) when (e is SocketException or ArgumentException or TimeoutException)
            {
                found.Add(new CheckedName(name, source, [], e is TimeoutException ? "the resolver does not answer" : e.Message));
                continue;
            }

            var tried = addresses.Distinct().Take(MostAddresses).Select(address => new Tried(new IPEndPoint(address, port))).ToList();
            for (var round = 0; round < Attempts && !cancellation.IsCancellationRequested; round++)
            {
                // What has refused or swallowed two attempts is dead; a third says no more.
                foreach (var one in tried.Where(one => one.Connected > 0 || one.Attempts < Attempts - 1))
                {
                    progress?.Invoke(TcpEndPoint.From(one.EndPoint.Address, one.EndPoint.Port).ToString());
                    await TryAsync(network, one, cancellation).ConfigureAwait(false);
                }
            }

            found.Add(new CheckedName(name, source, [.. tried.Where(one => one.Attempts > 0).Select(one => one.Result())], tried.Count == 0 ? "it has no address" : null));
        }

        return found;
    }

    private static async Task TryAsync(NetworkNamespace network, Tried one, CancellationToken cancellation)
    {
        var any = one.EndPoint.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any;
        var result = await ConnectProbe.TryAsync(network, any, one.EndPoint, ConnectProbeProtocol.Tcp, Timeout, cancellation).ConfigureAwait(false);
        if (!cancellation.IsCancellationRequested)
        {
            one.Note(result);
            await Task.Delay(Pause, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private sealed class Tried(IPEndPoint endPoint)
    {
        private string? _failure;

        public IPEndPoint EndPoint => endPoint;

        public int Attempts { get; private set; }

        public int Connected { get; private set; }

        public void Note(ConnectProbeResult result)
        {
            Attempts++;
            if (result.Outcome == ConnectProbeOutcome.Connected)
            {
                Connected++;
            }
            else
            {
                _failure = result.Outcome switch
                {
                    ConnectProbeOutcome.Refused => "refused",
                    ConnectProbeOutcome.TimedOut => "no answer",
                    ConnectProbeOutcome.Unreachable => "unreachable",
                    _ => "not tried",
                };
            }
        }

        public CheckedAddress Result() => new(
            endPoint.Address.ToString(),
            Connected == Attempts ? AddressState.Alive : Connected > 0 ? AddressState.Flapping : AddressState.Dead,
            Attempts,
            Connected,
            _failure);
    }
}
