using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.PostgreSql;

namespace Sidecar.Agent.Measurement;

/// <summary>How many connections a ladder may have at a time: the server's places are the application's.</summary>
internal static class LadderPlaces
{
    // The least that measures anything: the two for comparison and two that idle.
    private const int ForComparison = 2;
    private const int Least = ForComparison + 2;

    // A guest has one for comparison, and one that idles where the server's free places are not known; up to two where they are:
    // with the connection that asks for sessions and a connect probe the server sees five.
    private const int GuestForComparison = 1;
    private const int LeastAsGuest = GuestForComparison + 1;
    private const int MostAsGuest = GuestForComparison + 2;
    private const double GuestShare = 0.1;

    /// <summary>Asks the server where it can be asked.</summary>
    /// <param name="first">The ladder's first connection.</param>
    /// <param name="target">Says which share of the free places may be used; a guest uses a tenth of them at most.</param>
    /// <param name="settings">Says how many are wanted, and whether this is a guest.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <returns>How many may idle, beside those for comparison.</returns>
    /// <exception cref="MeasurementException">Fewer are free than a ladder needs.</exception>
    public static async Task<int> CountAsync(LadderConnection first, MeasurementTarget target, LadderSettings settings, CancellationToken cancellation)
    {
        var (share, least, comparison) = settings.IsGuest ? (GuestShare, LeastAsGuest, GuestForComparison) : (target.SlotShare, Least, ForComparison);
        if (first is not PostgreSqlLadderConnection session)
        {
            return settings.IsGuest ? least - comparison : settings.Slots;
        }

        var slots = await LadderSessions.CountSlotsAsync(session, cancellation);
        var allowed = (int)((slots.Free + 1) * share);
        if (allowed < least)
        {
            throw new MeasurementException(
                $"{target}: no ladder: {slots.Free} of {slots.Total} connection slots are free ({slots.Limit}); "
                + $"{share:P0} of them are fewer than the {least} that a ladder needs");
        }

        return Math.Min(settings.Slots, (settings.IsGuest ? Math.Min(allowed, MostAsGuest) : allowed) - comparison);
    }
}
