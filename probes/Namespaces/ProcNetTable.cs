using System.Buffers.Text;

namespace Sidecar.Probes.Namespaces;

/// <summary>
/// The tables of /proc/net/snmp and /proc/net/netstat: a line of names, then a line of numbers in the same order, both
/// beginning with the table's name and a colon (net/ipv4/proc.c).
/// </summary>
internal static class ProcNetTable
{
    /// <summary>The number under a name; null where table or name is not there, or it is no number.</summary>
    /// <param name="text">The whole file.</param>
    /// <param name="table">Such as <c>Tcp:</c>.</param>
    /// <param name="name">Such as <c>RetransSegs</c>.</param>
    internal static long? Find(ReadOnlySpan<byte> text, ReadOnlySpan<byte> table, ReadOnlySpan<byte> name)
    {
        ReadOnlySpan<byte> names = default;
        foreach (var range in text.Split((byte)'\n'))
        {
            var line = text[range];
            if (!line.StartsWith(table))
            {
                continue;
            }

            if (!names.IsEmpty)
            {
                return Number(names, line, name);
            }

            names = line;
        }

        return null;
    }

    private static long? Number(ReadOnlySpan<byte> names, ReadOnlySpan<byte> numbers, ReadOnlySpan<byte> name)
    {
        var number = numbers.Split((byte)' ');
        foreach (var range in names.Split((byte)' '))
        {
            if (!number.MoveNext())
            {
                return null;
            }

            if (names[range].SequenceEqual(name))
            {
                var digits = numbers[number.Current];
                return Utf8Parser.TryParse(digits, out long value, out var used) && used == digits.Length ? value : null;
            }
        }

        return null;
    }
}
