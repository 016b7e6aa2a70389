using System.Net.Sockets;
using Npgsql;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.PostgreSql;

namespace Sidecar.Agent.Measurement;

/// <summary>What a ladder is run over, and by which clock: the network, or a simulated one in tests.</summary>
internal interface ILadderWire
{
    TimeProvider Clock { get; }

    /// <summary>Opens a connection that is to idle, or to be compared with.</summary>
    /// <exception cref="SocketException">It cannot be had.</exception>
    /// <exception cref="NpgsqlException">The server refuses the session.</exception>
    Task<LadderConnection> OpenAsync(CancellationToken cancellation);

    /// <summary>Opens one without a session, to be compared with a lost one.</summary>
    /// <exception cref="SocketException">It cannot be had.</exception>
    Task<LadderConnection> OpenPlainAsync(CancellationToken cancellation);

    /// <summary>Whether a fresh connection can be made within <paramref name="patience"/>; it is closed at once.</summary>
    /// <param name="port">The local port of a lost connection, which the server gives up thereby; 0: any.</param>
    Task<bool> CanConnectAsync(int port, TimeSpan patience, CancellationToken cancellation);

    /// <summary>Where the state of a connection is lost, by comparison with a living one.</summary>
    Task<HopFinding> FindHopAsync(LadderConnection forgotten, LadderConnection living, CancellationToken cancellation);
}

/// <summary>The network.</summary>
/// <param name="target">What is connected to.</param>
/// <param name="sessions">Opens authenticated sessions; null: plain TCP.</param>
internal sealed class NetworkWire(MeasurementTarget target, LadderSessions? sessions) : ILadderWire
{
    private static readonly TimeSpan ConnectPatience = TimeSpan.FromSeconds(3);

    public TimeProvider Clock => TimeProvider.System;

    public async Task<LadderConnection> OpenAsync(CancellationToken cancellation) => sessions is null
        ? await TcpLadderConnection.OpenAsync(target.Network, target.Endpoint, target.Payload, ConnectPatience, cancellation)
        : await sessions.OpenAsync(cancellation);

    public async Task<LadderConnection> OpenPlainAsync(CancellationToken cancellation) =>
        await TcpLadderConnection.OpenAsync(target.Network, target.Endpoint, default, ConnectPatience, cancellation);

    public Task<bool> CanConnectAsync(int port, TimeSpan patience, CancellationToken cancellation) =>
        TcpLadderConnection.CanConnectAsync(target.Network, target.Endpoint, port, patience, cancellation);

    public Task<HopFinding> FindHopAsync(LadderConnection forgotten, LadderConnection living, CancellationToken cancellation) =>
        HopFinder.FindAsync(target.Network, (OwnSocket)forgotten.Socket, (OwnSocket)living.Socket, target.Endpoint, cancellation);
}
