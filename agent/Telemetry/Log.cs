using Microsoft.Extensions.Logging;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Every message of the agent's log, with its event id. Ids are append-only; those that operators search for have a MESSAGE_ID in
/// the journal (<see cref="MessageIds"/>).
/// </summary>
internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Information, "conn-sidecar {Version} started: {Summary}")]
    public static partial void Started(this ILogger log, string version, string summary);

    [LoggerMessage(2, LogLevel.Information, "stopping; keepalives that were set stay in the kernel")]
    public static partial void Stopping(this ILogger log);

    [LoggerMessage(3, LogLevel.Information, "configuration reloaded: {Summary}")]
    public static partial void Reloaded(this ILogger log, string summary);

    [LoggerMessage(4, LogLevel.Error, "{Reason}")]
    public static partial void ReloadRefused(this ILogger log, string reason);

    [LoggerMessage(5, LogLevel.Warning, "{What}")]
    public static partial void Limitation(this ILogger log, string what);

    [LoggerMessage(6, LogLevel.Error, "{Upstream}: connect probes to {Destination} fail; nothing is closed or ended until they succeed")]
    public static partial void OutageBegan(this ILogger log, string upstream, TcpEndPoint destination);

    [LoggerMessage(7, LogLevel.Warning, "{Upstream}: connect probes to {Destination} succeed again")]
    public static partial void OutageEnded(this ILogger log, string upstream, TcpEndPoint destination);

    [LoggerMessage(8, LogLevel.Critical, "workers {Workers}: the budget of {Budget} terminations is used up; standing down. Workers hang and nothing more will be done about it")]
    public static partial void StoodDown(this ILogger log, string workers, int budget);

    [LoggerMessage(9, LogLevel.Warning, "{Connection}: its worker [{Pid}] has not run since the connection was closed")]
    public static partial void RecycleDidNotHelp(this ILogger log, string connection, int pid);

    [LoggerMessage(10, LogLevel.Information, "{Connection} ended by itself after {Seconds:0.###} s of silence")]
    public static partial void EndedByItself(this ILogger log, string connection, double seconds);

    [LoggerMessage(11, LogLevel.Warning, "sockets of other processes cannot be touched: {Reason}")]
    public static partial void TouchRefused(this ILogger log, string reason);

    [LoggerMessage(12, LogLevel.Warning, "{Problem}")]
    public static partial void ScanProblem(this ILogger log, string problem);

    [LoggerMessage(13, LogLevel.Error, "a tick failed; the next one begins anew")]
    public static partial void TickFailed(this ILogger log, Exception exception);

    [LoggerMessage(14, LogLevel.Critical, "the loop does not end; what it uses is left open")]
    public static partial void LoopDoesNotEnd(this ILogger log);

    [LoggerMessage(15, LogLevel.Warning, "{Path} cannot be written ({Reason}): after a restart the agent will not know its own keepalive options")]
    public static partial void LedgerNotWritten(this ILogger log, string path, string reason);

    [LoggerMessage(16, LogLevel.Warning, "{Path} is damaged ({Reason}); it is set aside as {Aside}")]
    public static partial void LedgerDamaged(this ILogger log, string path, string reason, string aside);

    [LoggerMessage(17, LogLevel.Warning, "{Path} cannot be read: {Reason}")]
    public static partial void LedgerNotRead(this ILogger log, string path, string reason);

    [LoggerMessage(18, LogLevel.Error, "{Reason}")]
    public static partial void NoControlSocket(this ILogger log, string reason);

    [LoggerMessage(19, LogLevel.Warning, "live connections cannot be made to go on at once after an outage, and wait for the kernel's own timer: {Reason}")]
    public static partial void ResumeRefused(this ILogger log, string reason);

    [LoggerMessage(20, LogLevel.Information, "reload: {Difference}")]
    public static partial void ReloadChanges(this ILogger log, string difference);
}
