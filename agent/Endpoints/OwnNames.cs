using System.Collections.Frozen;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Sidecar.Agent.Endpoints;

/// <summary>
/// The names by which the endpoint may be asked: its addresses, <c>localhost</c>, the host's name, its fully qualified name, and those
/// of the configuration. Any other could be a stranger's that resolves to this host (DNS rebinding). May be used by any thread.
/// </summary>
/// <param name="further">Names of the configuration.</param>
internal sealed class OwnNames(IReadOnlyList<string> further)
{
    /// <summary>Requests by names that are not known ask the resolver no more often.</summary>
    private static readonly TimeSpan AskAgainAfter = TimeSpan.FromMinutes(1);

    /// <summary>No request waits longer for the resolver.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly FrozenSet<string> _known = further.Select(Plain).Concat(["localhost", Dns.GetHostName(), Dns.GetHostName().Split('.')[0]])
        .ToFrozenSet(StringComparer.OrdinalIgnoreCase);
    private readonly Lock _gate = new();
    private volatile string? _qualified;
    private Task _asking = Task.CompletedTask;
    private long? _askedAt;

    /// <summary>Whether a Host header names this host. What the resolver once gave as its name it keeps.</summary>
    public async ValueTask<bool> IncludeAsync(string host)
    {
        var name = Plain(host);
        if (_known.Contains(name) || IPAddress.TryParse(name.Trim('[', ']'), out _) || IsQualified(name))
        {
            return true;
        }

        Task asking;
        lock (_gate)
        {
            if (_asking.IsCompleted && (_askedAt is not { } last || Stopwatch.GetElapsedTime(last) > AskAgainAfter))
            {
                _askedAt = Stopwatch.GetTimestamp();
                _asking = AskAsync();
            }

            asking = _asking;
        }

        await asking.ConfigureAwait(false);
        return IsQualified(name);
    }

    private static string Plain(string name) => name.TrimEnd('.');

    private bool IsQualified(string name) => string.Equals(_qualified, name, StringComparison.OrdinalIgnoreCase);

    /// <summary>As <c>hostname --fqdn</c>: from /etc/hosts or from the name server, as the host is set up.</summary>
    private async Task AskAsync()
    {
        try
        {
            _qualified = Plain((await Dns.GetHostEntryAsync(Dns.GetHostName()).WaitAsync(Patience).ConfigureAwait(false)).HostName);
        }
        catch (Exception e) when (e is SocketException or TimeoutException or ArgumentException)
        {
            // not known, or not now
        }
    }
}
