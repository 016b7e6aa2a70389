using System.Net;
using Npgsql;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Namespaces;

namespace Sidecar.Agent.Measurement;

/// <summary>A ladder cannot be run; the message is for the operator.</summary>
internal sealed class MeasurementException(string message) : Exception(message);

/// <summary>What is measured, and with what.</summary>
internal sealed record MeasurementTarget
{
    /// <summary><see cref="SlotShare"/> where nobody says another.</summary>
    public const double UsualSlotShare = 0.2;

    /// <summary>Host as named by the operator.</summary>
    public required string Host { get; init; }

    /// <summary>The one address that all connections go to.</summary>
    public required IPEndPoint Endpoint { get; init; }

    /// <summary>Network namespace of the connections; null: this process's own.</summary>
    public NetworkNamespace? Network { get; init; }

    public required UpstreamProtocol Protocol { get; init; }

    /// <summary>Credentials; needed for PostgreSQL.</summary>
    public NpgsqlConnectionStringBuilder? Dsn { get; init; }

    /// <summary>Application data for plain TCP that the server is known to take without harm; empty: none is sent.</summary>
    public ReadOnlyMemory<byte> Payload { get; init; }

    /// <summary>Share of the server's free connection slots that may be used.</summary>
    public double SlotShare { get; init; } = UsualSlotShare;

    public override string ToString() => Endpoint.ToString();
}

/// <summary>What is known while a ladder runs.</summary>
/// <param name="Elapsed">Since the start.</param>
/// <param name="Lower">Longest gap survived so far.</param>
/// <param name="Upper">Shortest gap lost so far, or null.</param>
/// <param name="Idling">Connections that idle.</param>
/// <param name="Left">Time left: until the next verdicts end it, or at most until the longest gap has been tried.</param>
internal readonly record struct LadderProgress(TimeSpan Elapsed, TimeSpan Lower, TimeSpan? Upper, int Idling, TimeSpan Left);
