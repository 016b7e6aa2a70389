using System.Text;
using Sidecar.Agent.Measurement;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Commands;

/// <summary>
/// The gaps that were tried, on a line with a logarithmic scale: a row for the survived ones, a row for the lost ones. Losses that were
/// contradicted again and again have a question mark.
/// </summary>
internal static class GapPicture
{
    private static readonly int[] TickSeconds = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 432000];

    /// <summary>The lines of the picture, none wider than <paramref name="width"/>; none at all when nothing was tried.</summary>
    public static IReadOnlyList<string> Draw(IReadOnlyList<TriedGap> gaps, int width)
    {
        const string survivedLabel = "survived ";
        const string lostLabel = "lost     ";
        var columns = width - survivedLabel.Length;
        if (gaps.Count == 0 || columns < 20)
        {
            return [];
        }

        var from = Math.Log(Math.Max(0.5, gaps.Min(g => g.Gap.TotalSeconds) * 0.8));
        var to = Math.Log(Math.Max(2, gaps.Max(g => g.Gap.TotalSeconds) * 1.25));
        int Column(double seconds) => Math.Clamp((int)Math.Round((Math.Log(Math.Max(seconds, 0.5)) - from) / (to - from) * (columns - 1)), 0, columns - 1);

        var survived = Row(columns, ' ');
        var lost = Row(columns, ' ');
        foreach (var gap in gaps.OrderBy(g => g.Counts))
        {
            (gap.Survived ? survived : lost)[Column(gap.Gap.TotalSeconds)] = gap.Survived ? '●' : gap.Counts ? '×' : '?';
        }

        var axis = Row(columns, '─');
        var labels = Row(columns, ' ');
        var free = 0;
        foreach (var tick in TickSeconds.Where(t => Math.Log(t) >= from && Math.Log(t) <= to))
        {
            var column = Column(tick);
            axis[column] = '┴';
            var label = Duration.Format(TimeSpan.FromSeconds(tick));
            if (column >= free && column + label.Length <= columns)
            {
                label.CopyTo(0, labels, column, label.Length);
                free = column + label.Length + 1;
            }
        }

        var indent = new string(' ', survivedLabel.Length);
        return
        [
            (survivedLabel + new string(survived)).TrimEnd(),
            (lostLabel + new string(lost)).TrimEnd(),
            indent + new string(axis),
            (indent + new string(labels)).TrimEnd(),
        ];
    }

    /// <summary>A bar for a share from 0 to 1.</summary>
    public static string Bar(double share, int width)
    {
        var filled = (int)Math.Round(Math.Clamp(share, 0, 1) * width);
        return new StringBuilder(width).Append('█', filled).Append('░', width - filled).ToString();
    }

    private static char[] Row(int columns, char fill)
    {
        var row = new char[columns];
        Array.Fill(row, fill);
        return row;
    }
}
