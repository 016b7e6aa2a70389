namespace Sidecar.Agent.Core.Snapshots;

/// <summary>The server's side of a connection, for people and programs.</summary>
/// <param name="State">As pg_stat_activity names it.</param>
/// <param name="Query">Time since the query in progress began; null while none runs.</param>
/// <param name="Transaction">Time since the transaction in progress began; null outside one.</param>
/// <param name="BackendPid">Process id on the server.</param>
/// <param name="Resting">Time since the last query ended; null while one runs.</param>
public sealed record SessionStatus(string State, TimeSpan? Query, TimeSpan? Transaction, int BackendPid, TimeSpan? Resting);
