using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Action;

/// <summary>Ends back-ends on the server, in the background, each provably the one that was meant. What came of it goes to the inbox.</summary>
/// <param name="sessions">Sessions on database servers.</param>
/// <param name="inbox">Where the end of a release goes.</param>
/// <param name="clock">The agent's.</param>
internal sealed class SessionEnder(SessionTable sessions, Inbox inbox, Clock clock)
{
    /// <summary>From the recycle to the end of the attempt.</summary>
    private static readonly TimeSpan Within = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan Between = TimeSpan.FromMilliseconds(100);

    /// <summary>Begins a release.</summary>
    public void Begin(ReleaseSession command)
    {
        if (sessions.Find(command.Upstream) is not { } watch)
        {
            inbox.ReleaseEnded(new ReleaseEnded(command.Incident, "failed", null, "there is no session on the server to ask from", null));
            return;
        }

        var deadline = clock.Now + Within;
        watch.Do(async (probe, cancellation) =>
        {
            try
            {
                inbox.ReleaseEnded(await EndAsync(watch, probe, command, deadline, cancellation).ConfigureAwait(false));
            }
            catch (Exception e) when (e is not OperationCanceledException)
            {
                inbox.ReleaseEnded(new ReleaseEnded(command.Incident, "failed", null, e.Message, null));
            }
        });
    }

    private async Task<ReleaseEnded> EndAsync(SessionWatch watch, SessionProbe probe, ReleaseSession command, TimeSpan deadline, CancellationToken cancellation)
    {
        var known = command.Known;
        ServerSession? signalled = null;
        ReleaseCase? orphan = null;
        var detail = "the server was not asked in time";
        ReleaseEnded Outcome(string outcome, string? why) => new(command.Incident, outcome, null, why, signalled) { Orphan = orphan };
        ReleaseEnded Withheld(Guardrail by, string why) => new(command.Incident, "withheld", by, why, signalled) { Orphan = by == Guardrail.NotPermitted ? null : orphan };
        while (true)
        {
            try
            {
                if (signalled is not null)
                {
                    if (!await probe.IsThereAsync(signalled, cancellation).ConfigureAwait(false))
                    {
                        return Outcome("released", null);
                    }

                    detail = "the back-end has not ended on SIGTERM";
                }
                else
                {
                    var view = await watch.ScanAsync(probe, [command.Claim.Client.ToIPAddress()], cancellation).ConfigureAwait(false);
                    var identity = SessionMatch.Find(view, command.Claim, out var session, out var why);

                    // Another one than was known: that has gone, and its address and port have a new owner already.
                    if (identity == SessionIdentity.Gone
                        || (identity == SessionIdentity.Proven && known is not null && (known.Pid != session!.Pid || known.Started != session.Started)))
                    {
                        return Outcome("vanished", null);
                    }

                    orphan = new ReleaseCase
                    {
                        IsProven = identity == SessionIdentity.Proven,
                        IsClientAlive = identity == SessionIdentity.Proven ? IsAlive(command.Claim, command.Device) : null,
                        Observe = false,
                    };
                    var decision = RemedyPlanner.ForRelease(orphan.Value);
                    if (decision.WithheldBy is { } guardrail)
                    {
                        return Withheld(guardrail, why ?? "the client's socket is alive, or it cannot be seen");
                    }

                    switch (await probe.TerminateAsync(session!, cancellation).ConfigureAwait(false))
                    {
                        case TerminateResult.Signalled:
                            signalled = session;
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

            if (clock.Now >= deadline)
            {
                return signalled is null ? Withheld(Guardrail.Unknown, detail) : Outcome("failed", detail);
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
}
