using System.Collections.Concurrent;
using System.Globalization;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Remedies;

/// <summary>
/// Remedy 4: the back-end of a recycled connection is ended on the server, where a DSN is configured and the back-end
/// is provably that connection's, so that its locks and its transaction do not linger. Asking and ending happen in the
/// background; what came of it is collected by the loop.
/// </summary>
internal sealed class SessionReleaser(SessionTable sessions, Teller teller)
{
    /// <summary>From the recycle to the end of the attempt.</summary>
    private static readonly TimeSpan Within = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan Between = TimeSpan.FromMilliseconds(100);

    private readonly ConcurrentQueue<(Incident Incident, Guardrail? WithheldBy)> _results = new();
    private int _pending;

    /// <summary>True while a result is awaited.</summary>
    public bool IsFollowing => _pending > 0;

    /// <summary>A connection was recycled.</summary>
    /// <param name="connection">The connection that is no more.</param>
    /// <param name="recycled">The incident that tells of it.</param>
    /// <param name="now">When, monotonic.</param>
    public void Release(TrackedConnection connection, Incident recycled, TimeSpan now)
    {
        if (sessions.Find(connection.Upstream.Name) is not { } watch)
        {
            return;
        }

        var claim = sessions.Claim(connection);
        var known = sessions.FindSession(connection, now, out _);
        var incident = teller.Begin(About(connection, recycled, known));
        _pending++;
        watch.Do(async (probe, cancellation) =>
        {
            try
            {
                _results.Enqueue(await EndAsync(watch, probe, claim, known, connection.Key.Interface, incident, now + Within, cancellation).ConfigureAwait(false));
            }
            catch (Exception e) when (e is not OperationCanceledException)
            {
                _results.Enqueue((incident with { Outcome = "failed", Why = $"{incident.Why}; {e.Message}" }, null));
            }
        });
    }

    /// <summary>In observe mode nothing is recycled and nothing ended; what would have been is told.</summary>
    public void Withhold(TrackedConnection connection, Incident recycle, TimeSpan now)
    {
        if (sessions.Find(connection.Upstream.Name) is null)
        {
            return;
        }

        var known = sessions.FindSession(connection, now, out _);
        var by = RemedyPlanner.ForRelease(new ReleaseCase { IsProven = known is not null, IsClientAlive = false, Observe = true }).WithheldBy ?? Guardrail.Observe;
        teller.Withheld(connection.Upstream.Name, Remedy.Release, by);
        teller.Record(About(connection, recycle, known) with { Outcome = "withheld", WithheldBy = by.ToName() });
    }

    /// <summary>Writes down what has come of releases meanwhile.</summary>
    public void Follow()
    {
        while (_results.TryDequeue(out var result))
        {
            _pending--;
            if (result.WithheldBy is { } guardrail)
            {
                teller.Withheld(result.Incident.Upstream, Remedy.Release, guardrail);
            }

            teller.End(result.Incident);
        }
    }

    private async Task<(Incident Incident, Guardrail? WithheldBy)> EndAsync(
        SessionWatch watch, SessionProbe probe, SessionClaim claim, ServerSession? known, uint device, Incident incident, TimeSpan deadline, CancellationToken cancellation)
    {
        (Incident, Guardrail?) Outcome(string outcome, string? detail) =>
            (incident with { Outcome = outcome, Why = detail is null ? incident.Why : $"{incident.Why}; {detail}" }, null);

        (Incident, Guardrail?) Withheld(Guardrail by, string detail) =>
            (incident with { Outcome = "withheld", WithheldBy = by.ToName(), Why = $"{incident.Why}; {detail}" }, by);

        var signalled = false;
        var detail = "the server was not asked in time";
        while (true)
        {
            try
            {
                if (signalled)
                {
                    if (!await probe.IsThereAsync(known!, cancellation).ConfigureAwait(false))
                    {
                        return Outcome("released", null);
                    }

                    detail = "the back-end has not ended on SIGTERM";
                }
                else
                {
                    var view = await watch.LookAsync(probe, [claim.Client.ToIPAddress()], cancellation).ConfigureAwait(false);
                    var identity = SessionMatch.Find(view, claim, out var session, out var why);
                    if (identity == SessionIdentity.Proven && known is not null && (known.Pid != session!.Pid || known.Started != session.Started))
                    {
                        // The one that was known has gone, and its address and port have a new owner already.
                        return Outcome("vanished", null);
                    }

                    if (identity == SessionIdentity.Gone)
                    {
                        return Outcome("vanished", null);
                    }

                    var decision = RemedyPlanner.ForRelease(new ReleaseCase
                    {
                        IsProven = identity == SessionIdentity.Proven,
                        IsClientAlive = identity == SessionIdentity.Proven ? IsAlive(claim, device) : null,
                        Observe = false,
                    });
                    if (decision.WithheldBy is { } guardrail)
                    {
                        return Withheld(guardrail, why ?? "the client's socket is alive, or it cannot be seen");
                    }

                    switch (await probe.TerminateAsync(session!, cancellation).ConfigureAwait(false))
                    {
                        case TerminateResult.Signalled:
                            incident = incident with { Evidence = Evidence(incident.Evidence, session!) };
                            known = session;
                            signalled = true;
                            break;
                        case TerminateResult.Gone:
                            return Outcome("vanished", null);
                        case TerminateResult.NotPermitted:
                            return Withheld(Guardrail.NotPermitted, "the server does not permit it (pg_signal_backend, or the back-end is a superuser's)");
                        default:
                            return Outcome("failed", "the server could not end it");
                    }

                    continue;
                }
            }
            catch (ServerProbeException e)
            {
                detail = e.Message;
            }

            if (teller.Now >= deadline)
            {
                return signalled ? Outcome("failed", detail) : Withheld(Guardrail.Unknown, detail);
            }

            await Task.Delay(Between, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Whether the client's socket is there on this host; null where that cannot be seen.</summary>
    private static bool? IsAlive(in SessionClaim claim, uint device)
    {
        try
        {
            using var diagnostics = SockDiagClient.Open();
            return diagnostics.TryFind(claim.Local, claim.Peer, device, out _)
                || (claim.Direction == UpstreamDirection.Inbound && diagnostics.TryFind(claim.Peer, claim.Local, 0, out _));
        }
        catch (KernelException)
        {
            return null;
        }
    }

    private Incident About(TrackedConnection connection, Incident recycle, ServerSession? known) => recycle with
    {
        Id = teller.NextId(),
        Time = DateTimeOffset.UtcNow,
        Remedy = Remedy.Release.ToName(),
        Outcome = "pending",
        WithheldBy = null,
        Why = $"the connection {connection.Key.Local} -> {connection.Key.Peer} was recycled; its back-end must not keep its locks",
        StuckSeconds = null,
        ReleaseSeconds = null,
        Evidence = known is null ? new Dictionary<string, string>(StringComparer.Ordinal) : Evidence(new Dictionary<string, string>(StringComparer.Ordinal), known),
    };

    private static Dictionary<string, string> Evidence(IReadOnlyDictionary<string, string> before, ServerSession session)
    {
        var evidence = new Dictionary<string, string>(before, StringComparer.Ordinal)
        {
            ["backend_pid"] = session.Pid.ToString(CultureInfo.InvariantCulture),
            ["backend_start"] = session.Started.ToString("O", CultureInfo.InvariantCulture),
            ["session_state"] = session.State ?? "unknown",
            ["session_user"] = session.User,
            ["application_name"] = session.Application,
        };
        if (session.TransactionAge is { } transaction)
        {
            evidence["transaction_seconds"] = transaction.TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture);
        }

        return evidence;
    }
}
